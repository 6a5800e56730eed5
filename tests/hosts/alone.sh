# shellcheck shell=sh
# The first thing to do within `unshare --mount --propagation unchanged`, so that nobody else sees what is
# mounted from now on. unshare itself could do it only where `/` is a mount point, and in a chroot it is
# none: the directory that is one is seen from outside alone, by a process that goes there.
mount --make-rprivate / 2> /dev/null || nsenter --mount=/proc/self/ns/mnt mount --make-rprivate / || exit
