"""The slab caches that a booted Debian 6.1 has before anybody asks for one, oldest first.

Kernel: /proc/slabinfo of a machine just booted, and the caches that 3,112 creation requests were merged with.
A row is ``name object_size align flags joined``: how many other names it already stood for. ``-`` marks the
caches that none of the requests joined (a constructor, a usercopy region, or no request of that size); their
object size is the stride. The kmalloc caches come where the word KMALLOC stands.
"""

from __future__ import annotations

__all__ = ["BOOT_CACHES"]

BOOT_CACHES = """
kmem_cache 256 0 0 -
kmem_cache_node 64 0 0 -
KMALLOC
vmap_area 64 8 0x40000 7
mm_struct 1152 0 0 -
task_group 640 64 0x0 2
radix_tree_node 584 0 0 -
maple_node 256 256 0x40000 5
ftrace_event_field 56 8 0x40000 3
trace_event_file 96 8 0x40000 1
perf_event 1232 0 0 -
numa_policy 272 8 0x40000 1
shared_policy_node 48 8 0x40000 3
Acpi-State 80 8 0x0 3
Acpi-Operand 72 8 0x0 3
pid 128 64 0x4042000 5
anon_vma 104 0 0 -
anon_vma_chain 64 8 0x4040000 4
cred_jar 192 64 0x4042000 3
task_struct 6208 0 0 -
sighand_cache 2112 0 0 -
signal_cache 1152 64 0x4042000 3
files_cache 704 64 0x4042000 1
vm_area_struct 152 0 0 -
nsproxy 72 8 0x4040000 2
uts_namespace 432 0 0 -
lsm_file_cache 24 8 0x40000 2
lsm_inode_cache 32 8 0x40000 2
iint_cache 128 0 0 -
net_namespace 4480 0 0 -
names_cache 4096 0 0 -
dentry 192 0 0 -
inode_cache 640 0 0 -
filp 256 64 0x4042000 4
mnt_cache 320 64 0x4042000 1
kernfs_node_cache 128 8 0x40000 2
kernfs_iattrs_cache 88 8 0x40000 2
shmem_inode_cache 784 0 0 -
bdev_cache 1600 0 0 -
sigqueue 80 8 0x4040000 3
seq_file 120 8 0x4040000 1
proc_inode_cache 712 0 0 -
pde_opener 40 8 0x4040000 1
proc_dir_entry 192 0 0 -
taskstats 416 0 0 -
buffer_head 104 8 0x60000 1
file_lock_cache 216 8 0x40000 1
skbuff_head_cache 256 0 0 -
skbuff_fclone_cache 512 64 0x42000 2
skbuff_ext_cache 192 64 0x42000 7
sock_inode_cache 832 0 0 -
dmaengine-unmap-128 1088 64 0x2000 1
dmaengine-unmap-256 2100 64 0x2000 1
user_namespace 624 0 0 -
khugepaged_mm_slot 112 8 0x0 1
biovec-64 1024 64 0x42000 2
biovec-128 2048 64 0x42000 2
biovec-max 4096 64 0x42000 2
bio-192 256 0 0 -
request_queue 968 0 0 -
request_queue_srcu 1360 8 0x40000 1
dax_cache 832 0 0 -
ep_head 16 8 0x4040000 1
bio-256 320 0 0 -
dquot 256 64 0x62000 1
hugetlbfs_inode_cache 664 0 0 -
TCP 2304 0 0 -
request_sock_TCP 312 0 0 -
tw_sock_TCP 272 0 0 -
RAW 1024 0 0 -
PING 1024 64 0x4002000 3
ip_fib_alias 56 8 0x4040000 1
ip_fib_trie 48 8 0x4040000 2
xfrm_state 768 64 0x42000 1
xfrm_dst_cache 320 64 0x42000 1
request_sock_subflow_v4 384 0 0 -
MPTCP 1984 0 0 -
ip4-frags 200 8 0x0 1
pid_namespace 136 8 0x4040000 1
dnotify_struct 32 8 0x4040000 1
userfaultfd_ctx_cache 192 0 0 -
kioctx 576 64 0x42000 1
mqueue_inode_cache 960 0 0 -
TCPv6 2496 0 0 -
request_sock_TCPv6 312 0 0 -
tw_sock_TCPv6 272 0 0 -
UDPv6 1344 0 0 -
RAWv6 1216 0 0 -
PINGv6 1216 0 0 -
ip6-frags 184 0 0 -
request_sock_subflow_v6 384 0 0 -
MPTCPv6 2176 0 0 -
fscrypt_info 128 8 0x20000 1
fsverity_info 256 0 0 -
"""
