package dev.tidemark.ffm.kvm;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.HexFormat;

/**
 * A VM with one vCPU whose program writes pages. It is 64-bit code at CPL 3, because some hosts (a
 * nested one that runs without hardware virtualization) execute only that natively.
 *
 * <p>Slot 0 has the page tables and the program, slot 1 the pages that it writes.
 */
final class MiniGuest implements AutoCloseable {
  static final int SLOT = 1;
  static final int PORT = 0x10;
  static final long TEST_START = 2 << 20;

  private static final long PML4 = 0x1000;
  private static final long PDPT = 0x2000;
  private static final long PD = 0x3000;
  private static final long CODE = 0x8000;

  /** Present, writable, user, accessed: set in advance, so that the MMU writes no table. */
  private static final long TABLE = 0x27;

  /** As TABLE, and dirty, and a page of 2 MiB. */
  private static final long LARGE_PAGE = 0xe7;

  /** Writes r9 pages from r8 on, r10 bytes apart, then exits on a port; again and again. */
  private static final byte[] WRITE_PAGES =
      HexFormat.ofDelimiter(" ")
          .parseHex(
              "4c 89 c7" // start: mov rdi, r8
                  + " 4c 89 c9" //     mov rcx, r9
                  + " 48 89 07" // page: mov [rdi], rax
                  + " 4c 01 d7" //     add rdi, r10
                  + " 48 ff c9" //     dec rcx
                  + " 75 f5" //        jnz page
                  + " 48 ff c0" //     inc rax
                  + " e6 10" //        out PORT, al
                  + " eb e8"); //      jmp start

  final Kvm kvm;
  final KvmVm vm;
  final KvmVcpu vcpu;
  final Mapping memory;
  final long pages;

  private final Arena arena = Arena.ofShared();
  private final MemorySegment regs = arena.allocate(KvmLayouts.KVM_REGS);

  /** What a test does with the VM before it has slots and a vCPU. */
  interface Setup {
    void accept(KvmVm vm);
  }

  MiniGuest(long pages, int flags, Setup setup) {
    assumeKvm();
    this.pages = pages;
    kvm = Kvm.open();
    vm = kvm.createVm();
    setup.accept(vm);
    memory = Mapping.anonymous(TEST_START + pages * Pages.SIZE);
    MemorySegment bytes = memory.segment();
    vm.setUserMemoryRegion(0, 0, 0, TEST_START, bytes.address());
    vm.setUserMemoryRegion(
        SLOT, flags, TEST_START, pages * Pages.SIZE, bytes.address() + TEST_START);
    vcpu = vm.createVcpu(0, kvm.vcpuMmapSize());
    bytes.set(JAVA_LONG, PML4, PDPT | TABLE);
    bytes.set(JAVA_LONG, PDPT, PD | TABLE);
    for (long i = 0; i < 512; i++) {
      bytes.set(JAVA_LONG, PD + 8 * i, i << 21 | LARGE_PAGE);
    }
    MemorySegment.copy(WRITE_PAGES, 0, bytes, JAVA_BYTE, CODE, WRITE_PAGES.length);
    vcpu.setCpuid2(kvm.getSupportedCpuid(arena));
    setSregs();
    program(0, 1, 0);
  }

  static void assumeKvm() {
    var missing = Kvm.missing();
    assumeTrue(missing.isEmpty(), () -> "no KVM here: " + missing.orElseThrow());
  }

  private void setSregs() {
    MemorySegment sregs = arena.allocate(KvmLayouts.KVM_SREGS);
    vcpu.getSregs(sregs);
    segment(sregs, "cs", 0x33, 11, 0, 1);
    for (String name : new String[] {"ds", "es", "fs", "gs", "ss"}) {
      segment(sregs, name, 0x2b, 3, 1, 0);
    }
    sregs.set(JAVA_LONG, sreg("cr0"), 0x80000033L);
    sregs.set(JAVA_LONG, sreg("cr3"), PML4);
    sregs.set(JAVA_LONG, sreg("cr4"), 0x620);
    sregs.set(JAVA_LONG, sreg("efer"), 0x500);
    vcpu.setSregs(sregs);
  }

  private static long sreg(String... path) {
    return KvmLayouts.offset(KvmLayouts.KVM_SREGS, path);
  }

  private static void segment(
      MemorySegment sregs, String name, int selector, int type, int db, int l) {
    sregs.set(JAVA_LONG, sreg(name, "base"), 0);
    sregs.set(JAVA_INT, sreg(name, "limit"), -1);
    sregs.set(JAVA_SHORT, sreg(name, "selector"), (short) selector);
    sregs.set(JAVA_BYTE, sreg(name, "type"), (byte) type);
    sregs.set(JAVA_BYTE, sreg(name, "present"), (byte) 1);
    sregs.set(JAVA_BYTE, sreg(name, "dpl"), (byte) 3);
    sregs.set(JAVA_BYTE, sreg(name, "db"), (byte) db);
    sregs.set(JAVA_BYTE, sreg(name, "s"), (byte) 1);
    sregs.set(JAVA_BYTE, sreg(name, "l"), (byte) l);
    sregs.set(JAVA_BYTE, sreg(name, "g"), (byte) 1);
    sregs.set(JAVA_BYTE, sreg(name, "unusable"), (byte) 0);
  }

  static long reg(String name) {
    return KvmLayouts.offset(KvmLayouts.KVM_REGS, name);
  }

  /** From its start, the program shall write so many pages of slot 1, so far apart. */
  void program(long firstPage, long count, long stride) {
    regs.fill((byte) 0);
    regs.set(JAVA_LONG, reg("rax"), 1);
    regs.set(JAVA_LONG, reg("r8"), TEST_START + firstPage * Pages.SIZE);
    regs.set(JAVA_LONG, reg("r9"), count);
    regs.set(JAVA_LONG, reg("r10"), stride * Pages.SIZE);
    regs.set(JAVA_LONG, reg("rip"), CODE);
    regs.set(JAVA_LONG, reg("rflags"), 0x3002);
    vcpu.setRegs(regs);
  }

  /** A word of a test page. */
  long word(long page) {
    return memory.segment().get(JAVA_LONG, TEST_START + page * Pages.SIZE);
  }

  /** A borrowed handle of the descriptor behind an owner's label. */
  static int number(Fd fd) {
    int number = fd.acquire();
    fd.release();
    return number;
  }

  @Override
  public void close() {
    vcpu.close();
    vm.close();
    kvm.close();
    memory.close();
    arena.close();
  }
}
