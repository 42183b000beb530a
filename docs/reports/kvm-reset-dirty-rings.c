/* KVM_RESET_DIRTY_RINGS and signals: cc -O2 -o reset kvm-reset-dirty-rings.c && ./reset [block]
 *
 * A guest writes the same 8192 pages in each round. The program harvests its dirty ring and resets it while a timer's
 * signals come in, until the kernel has counted as many entries as were harvested. Each page should be in the ring again
 * in the next round. With "block", the signals are blocked during the ioctl.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { PAGES = 8192, RING = 1 << 20, ROUNDS = 200, START = 2 << 20, SIZE = START + PAGES * 4096 };

static void on_signal(int number) {}

static int call(int fd, unsigned long request, void *argument, const char *name)
{
	int result = ioctl(fd, request, argument);
	if (result < 0)
		err(2, "%s", name);
	return result;
}

static void timer(int microseconds)
{
	struct itimerval value = { { 0, microseconds }, { 0, microseconds } };
	setitimer(ITIMER_REAL, &value, NULL);
}

/* Long mode at CPL 3 with 2 MiB pages, as hosts without hardware virtualization run nothing else natively. */
static void prepare(int vcpu, uint8_t *memory)
{
	static const uint8_t code[] = {
		0x48, 0x89, 0x07,			/* again: mov [rdi], rax */
		0x48, 0x81, 0xc7, 0x00, 0x10, 0, 0,	/*        add rdi, 4096 */
		0x48, 0xff, 0xc9,			/*        dec rcx */
		0x75, 0xf1,				/*        jnz again */
		0xe6, 0x10,				/*        out 0x10, al */
	};
	uint64_t *table = (uint64_t *)(memory + 0x1000);
	struct kvm_sregs sregs;
	struct kvm_segment data = { .limit = -1, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1 };

	memcpy(memory + 0x8000, code, sizeof(code));
	table[0] = 0x2027;
	table[512] = 0x3027;
	for (uint64_t i = 0; i < 512; i++)
		table[1024 + i] = i << 21 | 0xe7;
	call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.cs = data;
	sregs.cs.selector = 0x33;
	sregs.cs.type = 11;
	sregs.cs.db = 0;
	sregs.cs.l = 1;
	sregs.cr0 = 0x80000033;
	sregs.cr3 = 0x1000;
	sregs.cr4 = 0x620;
	sregs.efer = 0x500;
	call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

int main(int count, char **arguments)
{
	int block = count > 1 && !strcmp(arguments[1], "block");
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL, .args = { RING } };
	uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region low = { 0, 0, 0, START, (uintptr_t)memory };
	struct kvm_userspace_memory_region high = { 1, KVM_MEM_LOG_DIRTY_PAGES, START, SIZE - START, (uintptr_t)memory + START };
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = { { .nent = 256 } };

	call(vm, KVM_ENABLE_CAP, &cap, "KVM_ENABLE_CAP(KVM_CAP_DIRTY_LOG_RING_ACQ_REL)");
	call(vm, KVM_SET_USER_MEMORY_REGION, &low, "KVM_SET_USER_MEMORY_REGION");
	call(vm, KVM_SET_USER_MEMORY_REGION, &high, "KVM_SET_USER_MEMORY_REGION");
	int vcpu = call(vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	struct kvm_run *run = mmap(NULL, call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE"),
				   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	struct kvm_dirty_gfn *ring = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu,
					  KVM_DIRTY_LOG_PAGE_OFFSET * 4096L);
	call(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid, "KVM_GET_SUPPORTED_CPUID");
	call(vcpu, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
	prepare(vcpu, memory);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_signal }, NULL);

	unsigned int next = 0, total = 0, short_counts = 0;
	for (int round = 0; round < ROUNDS; round++) {
		struct kvm_regs regs = { .rax = round + 1, .rdi = START, .rcx = PAGES, .rip = 0x8000, .rflags = 0x3002 };
		call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
		while (ioctl(vcpu, KVM_RUN, 0) < 0)
			if (errno != EINTR && errno != EAGAIN)
				err(2, "KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO)
			errx(2, "exit reason %u", run->exit_reason);

		static uint8_t seen[PAGES];
		int harvested = 0, pages = 0;
		memset(seen, 0, PAGES);
		for (;; next++, harvested++) {
			struct kvm_dirty_gfn *entry = &ring[next % (RING / sizeof(*ring))];
			if (__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
				break;
			pages += !seen[entry->offset]++;
			__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		}
		if (pages < PAGES)
			printf("round %d: the guest wrote %d pages, the ring has %d\n", round, PAGES, pages);
		total += PAGES - pages;

		sigset_t all, old;
		sigfillset(&all);
		timer(50);
		for (int reset = 0; reset < harvested;) {
			if (block)
				sigprocmask(SIG_BLOCK, &all, &old);
			int some = call(vm, KVM_RESET_DIRTY_RINGS, NULL, "KVM_RESET_DIRTY_RINGS");
			if (block)
				sigprocmask(SIG_SETMASK, &old, NULL);
			reset += some;
			short_counts += reset < harvested;
		}
		timer(0);
	}
	printf("%d rounds, %u short counts, %u pages lost\n", ROUNDS, short_counts, total);
	return total > 0;
}
