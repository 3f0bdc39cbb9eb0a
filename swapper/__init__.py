"""Release directories and the links `hot` and `cold`: the only code that changes what is served.

The promise: a reader of `hot` finds one whole build, the old or the new, at every moment and after every crash of the
writer: `hot` is never absent once it exists, never points to a release that was not durable before, and a path under
`releases` is never used for a second build. A swap that returned is durable, a release that was complete stays whole
until it is collected, and going back is one swap. `Swapper.open` decides from what it finds on the disk, and removes
nothing that this package did not make.

The limits. One process writes a root: a second is refused by locks, but programs that ignore locks are not kept from
changing links or trees. It is made for local Linux file systems: not for NFS or other network file systems. Durable
means that the kernel reported success: a device that lies about its cache, or a file system mounted without barriers,
is not detected; before Linux 5.8 syncfs does not report lost writes: use the durability `fsync` there. A reader that
resolves `hot` more than once may see two builds, each whole: that is not prevented here, but by draining. If the state
directory is lost, paths that were removed earlier are not known any more. Where the file system cannot exchange two
names, `hot` and `cold` are not flipped in one step: `hot` first, then `cold`.

Knows nothing of Consul, of processes, or of how a build is fetched.
"""

from swapper.disk import Disk, Release
from swapper.durable import remove_temporary, write_durably
from swapper.kernel import LINUX, Kernel
from swapper.layout import Layout
from swapper.links import How
from swapper.retention import Collected
from swapper.swapper import Durability, Prepared, Swap, Swapper

__all__ = [
    "LINUX",
    "Collected",
    "Disk",
    "Durability",
    "How",
    "Kernel",
    "Layout",
    "Prepared",
    "Release",
    "Swap",
    "Swapper",
    "remove_temporary",
    "write_durably",
]
