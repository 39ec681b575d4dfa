"""The slab caches that a booted Debian 6.1 has before anybody asks for one, oldest first.

Kernel: /proc/slabinfo of a machine just booted, and the caches that 3,112 creation requests were merged with.
A row is ``name size object_size align flags joined``: the size it was created with (as its free pointer's place
tells), the largest that joined it, and how many names it stands for. ``-`` marks the caches that none of the
requests joined (a constructor, a usercopy region, or no request of that size); their sizes are the stride.
The kmalloc caches come where the word KMALLOC stands.
"""

from __future__ import annotations

__all__ = ["BOOT_CACHES"]

BOOT_CACHES = """
kmem_cache 256 256 0 0 -
kmem_cache_node 64 64 0 0 -
KMALLOC
vmap_area 64 64 8 0x40000 7
mm_struct 1152 1152 0 0 -
task_group 640 640 64 0x0 2
radix_tree_node 584 584 0 0 -
maple_node 256 256 256 0x40000 5
ftrace_event_field 56 56 8 0x40000 3
trace_event_file 96 96 8 0x40000 1
perf_event 1232 1232 0 0 -
numa_policy 272 272 8 0x40000 1
shared_policy_node 48 48 8 0x40000 3
Acpi-State 80 80 8 0x0 3
Acpi-Operand 72 72 8 0x0 3
pid 112 128 64 0x4042000 5
anon_vma 104 104 0 0 -
anon_vma_chain 64 64 8 0x4040000 4
cred_jar 176 192 64 0x4042000 3
task_struct 6208 6208 0 0 -
sighand_cache 2112 2112 0 0 -
signal_cache 1104 1152 64 0x4042000 3
files_cache 704 704 64 0x4042000 1
vm_area_struct 152 152 0 0 -
nsproxy 72 72 8 0x4040000 2
uts_namespace 432 432 0 0 -
lsm_file_cache 24 24 8 0x40000 2
lsm_inode_cache 32 32 8 0x40000 2
iint_cache 128 128 0 0 -
net_namespace 4480 4480 0 0 -
names_cache 4096 4096 0 0 -
dentry 192 192 0 0 -
inode_cache 640 640 0 0 -
filp 224 256 64 0x4042000 4
mnt_cache 320 320 64 0x4042000 1
kernfs_node_cache 128 128 8 0x40000 2
kernfs_iattrs_cache 88 88 8 0x40000 2
shmem_inode_cache 784 784 0 0 -
bdev_cache 1600 1600 0 0 -
sigqueue 80 80 8 0x4040000 3
seq_file 120 120 8 0x4040000 1
proc_inode_cache 712 712 0 0 -
pde_opener 40 40 8 0x4040000 1
proc_dir_entry 192 192 0 0 -
taskstats 416 416 0 0 -
buffer_head 104 104 8 0x60000 1
file_lock_cache 216 216 8 0x40000 1
skbuff_head_cache 256 256 0 0 -
skbuff_fclone_cache 464 512 64 0x42000 2
skbuff_ext_cache 160 176 64 0x42000 7
sock_inode_cache 832 832 0 0 -
dmaengine-unmap-128 1056 1056 64 0x2000 1
dmaengine-unmap-256 2080 2080 64 0x2000 1
user_namespace 624 624 0 0 -
khugepaged_mm_slot 112 112 8 0x0 1
biovec-64 1024 1024 64 0x42000 2
biovec-128 2048 2048 64 0x42000 2
biovec-max 4096 4096 64 0x42000 2
bio-192 256 256 0 0 -
request_queue 968 968 0 0 -
request_queue_srcu 1360 1360 8 0x40000 1
dax_cache 832 832 0 0 -
ep_head 16 16 8 0x4040000 1
bio-256 320 320 0 0 -
dquot 208 256 64 0x62000 1
hugetlbfs_inode_cache 664 664 0 0 -
TCP 2304 2304 0 0 -
request_sock_TCP 312 312 0 0 -
tw_sock_TCP 272 272 0 0 -
RAW 1024 1024 0 0 -
PING 992 1024 64 0x4002000 3
ip_fib_alias 56 56 8 0x4040000 1
ip_fib_trie 48 48 8 0x4040000 2
xfrm_state 736 768 64 0x42000 1
xfrm_dst_cache 304 304 64 0x42000 1
request_sock_subflow_v4 384 384 0 0 -
MPTCP 1984 1984 0 0 -
ip4-frags 200 200 8 0x0 1
pid_namespace 136 136 8 0x4040000 1
dnotify_struct 32 32 8 0x4040000 1
userfaultfd_ctx_cache 192 192 0 0 -
kioctx 576 576 64 0x42000 1
mqueue_inode_cache 960 960 0 0 -
TCPv6 2496 2496 0 0 -
request_sock_TCPv6 312 312 0 0 -
tw_sock_TCPv6 272 272 0 0 -
UDPv6 1344 1344 0 0 -
RAWv6 1216 1216 0 0 -
PINGv6 1216 1216 0 0 -
ip6-frags 184 184 0 0 -
request_sock_subflow_v6 384 384 0 0 -
MPTCPv6 2176 2176 0 0 -
fscrypt_info 128 128 8 0x20000 1
fsverity_info 256 256 0 0 -
"""
