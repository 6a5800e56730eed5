# shellcheck shell=sh
# Do this first within `unshare --mount --propagation unchanged`. Then nobody else sees what is
# mounted from now on. unshare itself can do it only when `/` is a mount point, and in a chroot it
# is none. The directory that is one is seen only from outside the chroot, by a process that goes
# there.
mount --make-rprivate / 2> /dev/null ||
	nsenter --mount=/proc/self/ns/mnt mount --make-rprivate / || exit
