package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmLayouts;
import dev.tidemark.ffm.kvm.KvmVcpu;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/**
 * A VM whose vCPUs run a program that writes pages. It is 64-bit code at CPL 3, because some hosts
 * (a nested one that runs without hardware virtualization) execute only that natively.
 *
 * <p>Slot 0 has the page tables and the program, slot 1 the pages that it writes.
 */
public final class MiniGuest implements AutoCloseable {
  public static final int SLOT = 1;
  public static final int PORT = 0x10;
  public static final long TEST_START = 2 << 20;

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

  public final Kvm kvm;
  public final KvmVm vm;

  /** The first one. */
  public final KvmVcpu vcpu;

  public final List<KvmVcpu> vcpus = new ArrayList<>();
  public final Mapping memory;
  public final long pages;

  private final Arena arena = Arena.ofShared();

  /** What a test does with the VM before it has slots and a vCPU. */
  public interface Setup {
    void accept(KvmVm vm);
  }

  /** A guest of one vCPU. */
  public MiniGuest(long pages, int flags, Setup setup) {
    this(1, pages, flags, setup);
  }

  /**
   * Creates a VM.
   *
   * @param pages how many pages slot 1 has, at most 261,000
   * @param flags of slot 1
   */
  public MiniGuest(int vcpuCount, long pages, int flags, Setup setup) {
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
    bytes.set(JAVA_LONG, PML4, PDPT | TABLE);
    bytes.set(JAVA_LONG, PDPT, PD | TABLE);
    for (long i = 0; i < 512; i++) {
      bytes.set(JAVA_LONG, PD + 8 * i, i << 21 | LARGE_PAGE);
    }
    MemorySegment.copy(WRITE_PAGES, 0, bytes, JAVA_BYTE, CODE, WRITE_PAGES.length);
    for (int id = 0; id < vcpuCount; id++) {
      KvmVcpu next = vm.createVcpu(id, kvm.vcpuMmapSize());
      vcpus.add(next);
      next.setCpuid2(kvm.getSupportedCpuid(arena));
      setSregs(next);
      program(next, 0, 1, 0, 1);
    }
    vcpu = vcpus.getFirst();
  }

  public static void assumeKvm() {
    var missing = Kvm.missing();
    assumeTrue(missing.isEmpty(), () -> "no KVM here: " + missing.orElseThrow());
  }

  private void setSregs(KvmVcpu vcpu) {
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

  public static long reg(String name) {
    return KvmLayouts.offset(KvmLayouts.KVM_REGS, name);
  }

  /** From its start, the program of the first vCPU shall write so many pages of slot 1. */
  public void program(long firstPage, long count, long stride) {
    program(vcpu, firstPage, count, stride, 1);
  }

  /**
   * Sets what a vCPU's program shall do from its start; on the vCPU's thread.
   *
   * @param stride how far apart, in pages
   * @param value what it writes first; one more after each exit
   */
  public void program(KvmVcpu vcpu, long firstPage, long count, long stride, long value) {
    try (Arena call = Arena.ofConfined()) {
      MemorySegment regs = call.allocate(KvmLayouts.KVM_REGS);
      regs.set(JAVA_LONG, reg("rax"), value);
      regs.set(JAVA_LONG, reg("r8"), TEST_START + firstPage * Pages.SIZE);
      regs.set(JAVA_LONG, reg("r9"), count);
      regs.set(JAVA_LONG, reg("r10"), stride * Pages.SIZE);
      regs.set(JAVA_LONG, reg("rip"), CODE);
      regs.set(JAVA_LONG, reg("rflags"), 0x3002);
      vcpu.setRegs(regs);
    }
  }

  /** A word of a test page. */
  public long word(long page) {
    return memory.segment().get(JAVA_LONG, TEST_START + page * Pages.SIZE);
  }

  /** A borrowed handle of the descriptor behind an owner's label. */
  public static int number(Fd fd) {
    int number = fd.acquire();
    fd.release();
    return number;
  }

  @Override
  public void close() {
    vcpus.forEach(KvmVcpu::close);
    vm.close();
    kvm.close();
    memory.close();
    arena.close();
  }
}
