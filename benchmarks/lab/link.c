/* A link between two network namespaces, with a rate and a delay in each direction.
 *
 *     link NAMESPACE NAMESPACE BITS_PER_SECOND ONE_WAY_DELAY_US
 *
 * Makes a device tun0 in both namespaces, says "ready", and carries packets until it is killed. Each direction has a
 * thread that takes packets in, and one that gives them out when they are due: a packet leaves the sender's interface
 * when those before it have, at the rate, and arrives after the delay. A queue that would take longer than QUEUE_NS to
 * drain drops its tail, as a router does. Packets keep their segmentation offload, so that the link costs a few percent
 * of one core at 1 Gbit/s; their length on the wire is taken as if each segment had been sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LONGEST (65536 + 64)
#define SLOTS 4096
#define QUEUE_NS 25000000LL /* at the rate: 3 MB at 1 Gbit/s, a little more than is on the way in 20 ms */
#define FRAME_OVERHEAD 38   /* Ethernet header, checksum, preamble and gap */
#define HEADERS 52          /* IPv4 and TCP with a timestamp, repeated in each segment */

struct packet {
    int64_t due_ns;
    int length;
    char *bytes;
};

struct direction {
    int from, to;
    int64_t free_ns; /* when the sender's interface has sent all that is queued */
    struct packet ring[SLOTS];
    unsigned head, tail;
    pthread_mutex_t lock;
    pthread_cond_t filled;
};

static double rate_bit;
static int64_t delay_ns;

static void die(const char *what)
{
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int64_t bytes_on_the_wire(const char *bytes, int length)
{
    struct virtio_net_hdr header;
    memcpy(&header, bytes, sizeof header);
    int64_t payload = length - (int64_t)sizeof header;
    int64_t segments = 1;
    if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE && header.gso_size)
        segments = (payload + header.gso_size - 1) / header.gso_size;
    return payload + (segments - 1) * HEADERS + segments * FRAME_OVERHEAD;
}

__attribute__((noreturn)) static void *take(void *argument)
{
    struct direction *way = argument;
    for (;;) {
        char *bytes = malloc(LONGEST);
        int length = bytes ? read(way->from, bytes, LONGEST) : -1;
        if (length < (int)sizeof(struct virtio_net_hdr))
            die("read");
        int64_t now = now_ns();
        pthread_mutex_lock(&way->lock);
        int64_t start = way->free_ns > now ? way->free_ns : now;
        if (start - now > QUEUE_NS || way->tail - way->head == SLOTS) {
            free(bytes);
        } else {
            way->free_ns = start + (int64_t)(bytes_on_the_wire(bytes, length) * 8e9 / rate_bit);
            way->ring[way->tail++ % SLOTS] = (struct packet){way->free_ns + delay_ns, length, bytes};
            pthread_cond_signal(&way->filled);
        }
        pthread_mutex_unlock(&way->lock);
    }
}

__attribute__((noreturn)) static void *give(void *argument)
{
    struct direction *way = argument;
    for (;;) {
        pthread_mutex_lock(&way->lock);
        while (way->head == way->tail)
            pthread_cond_wait(&way->filled, &way->lock);
        struct packet packet = way->ring[way->head % SLOTS];
        pthread_mutex_unlock(&way->lock);
        struct timespec due = {packet.due_ns / 1000000000LL, packet.due_ns % 1000000000LL};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
            ;
        /* A device that is down or full loses the packet, like a wire that was pulled. */
        if (write(way->to, packet.bytes, packet.length) < 0 && errno != EIO && errno != EINVAL)
            die("write");
        free(packet.bytes);
        pthread_mutex_lock(&way->lock);
        way->head++;
        pthread_mutex_unlock(&way->lock);
    }
}

static int open_tun(const char *namespace)
{
    int space = open(namespace, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET))
        die(namespace);
    int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tun < 0)
        die("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strcpy(request.ifr_name, "tun0");
    if (ioctl(tun, TUNSETIFF, &request))
        die("TUNSETIFF");
    if (ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6))
        die("TUNSETOFFLOAD");
    return tun;
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "link NAMESPACE NAMESPACE BITS_PER_SECOND ONE_WAY_DELAY_US\n");
        return 2;
    }
    int first = open_tun(words[1]), second = open_tun(words[2]);
    rate_bit = atof(words[3]);
    delay_ns = atoll(words[4]) * 1000;
    static struct direction ways[2];
    int ends[2][2] = {{first, second}, {second, first}};
    for (int i = 0; i < 2; i++) {
        ways[i].from = ends[i][0];
        ways[i].to = ends[i][1];
        pthread_mutex_init(&ways[i].lock, NULL);
        pthread_cond_init(&ways[i].filled, NULL);
        pthread_t thread;
        if (pthread_create(&thread, NULL, take, &ways[i]) || pthread_create(&thread, NULL, give, &ways[i]))
            die("pthread_create");
    }
    printf("ready\n");
    fflush(stdout);
    for (;;)
        pause();
}
