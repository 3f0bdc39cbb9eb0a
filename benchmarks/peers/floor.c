/* The least that must be done to have a tree: decompress it, create its files, write them.
 *
 *     floor ARCHIVE DIRECTORY THREADS
 *
 * The archive is what floor.py makes, mapped from the page cache. Directories and links are made first; then the
 * threads take frames off a counter. Files are opened relative to the root, with modes and times set.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

struct frame {
    const char *data;
    size_t length, plain;
};

static struct frame *frames;
static size_t count;
static atomic_size_t next;
static int root;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_piece(const char *path, mode_t mode, long mtime, long offset, const char *bytes, size_t size)
{
    /* Pieces of one large file may come in any order, from several threads. */
    int file = openat(root, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        die(path);
    for (size_t done = 0; done < size;) {
        ssize_t written = pwrite(file, bytes + done, size - done, offset + done);
        if (written < 0)
            die(path);
        done += written;
    }
    struct timespec times[2] = {{mtime, 0}, {mtime, 0}};
    if (fchmod(file, mode) || futimens(file, times) || close(file))
        die(path);
}

static void *work(void *unused)
{
    (void)unused;
    ZSTD_DCtx *context = ZSTD_createDCtx();
    char *plain = NULL;
    size_t room = 0;
    for (size_t i; (i = atomic_fetch_add(&next, 1)) < count;) {
        struct frame *frame = &frames[i];
        if (frame->plain > room && !(plain = realloc(plain, room = frame->plain)))
            die("memory");
        size_t got = ZSTD_decompressDCtx(context, plain, room, frame->data, frame->length);
        if (ZSTD_isError(got) || got != frame->plain)
            die("a frame is broken");
        for (char *at = plain; at < plain + got;) {
            char *end;
            mode_t mode = strtoul(at, &end, 10);
            long mtime = strtol(end, &end, 10), offset = strtol(end, &end, 10), size = strtol(end, &end, 10);
            const char *path = end + 1;
            const char *bytes = path + strlen(path) + 1;
            write_piece(path, mode, mtime, offset, bytes, size);
            at = (char *)bytes + size;
        }
    }
    return NULL;
}

int main(int argument_count, char **words)
{
    if (argument_count != 4) {
        fprintf(stderr, "floor ARCHIVE DIRECTORY THREADS\n");
        return 2;
    }
    int archive = open(words[1], O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (archive < 0 || fstat(archive, &status))
        die(words[1]);
    const char *start = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, archive, 0);
    if (start == MAP_FAILED)
        die("mmap");
    root = open(words[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        die(words[2]);
    size_t room = 0;
    for (const char *at = start, *end = start + status.st_size; at < end;) {
        char kind = *at;
        char *text;
        if (kind == 'D') {
            mode_t mode = strtoul(at + 2, &text, 10);
            if (mkdirat(root, text + 1, mode) || fchmodat(root, text + 1, mode, 0))
                die(text + 1);
            at = text + strlen(text) + 1;
        } else if (kind == 'L') {
            const char *path = at + 2, *target = path + strlen(path) + 1;
            if (symlinkat(target, root, path))
                die(path);
            at = target + strlen(target) + 1;
        } else {
            if (count == room && !(frames = realloc(frames, (room = room * 2 + 64) * sizeof *frames)))
                die("memory");
            struct frame *frame = &frames[count++];
            frame->length = strtoul(at + 2, &text, 10);
            frame->plain = strtoul(text, &text, 10);
            frame->data = text + 1;
            at = frame->data + frame->length;
        }
    }
    int thread_count = atoi(words[3]);
    pthread_t threads[thread_count];
    for (int i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            die("pthread_create");
    for (int i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
