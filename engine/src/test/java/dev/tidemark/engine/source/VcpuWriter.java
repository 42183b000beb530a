package dev.tidemark.engine.source;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmLayouts;
import dev.tidemark.ffm.kvm.KvmVcpu;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.HexFormat;

/**
 * A VM whose vCPU writes pages of memory that a test brings. It is 64-bit code at CPL 3, because
 * some hosts (a nested one that runs without hardware virtualization) execute only that natively.
 */
final class VcpuWriter implements AutoCloseable {
  static final int SLOT = 1;
  static final long GUEST_ADDRESS = 2 << 20;

  private static final int RING_BYTES = 65_536;
  private static final long PML4 = 0x1000;
  private static final long PDPT = 0x2000;
  private static final long PD = 0x3000;
  private static final long CODE = 0x8000;

  /** Present, writable, user, accessed: set in advance, so that the MMU writes no table. */
  private static final long TABLE = 0x27;

  /** As TABLE, and dirty, and a page of 2 MiB. */
  private static final long LARGE_PAGE = 0xe7;

  /** Writes r9 pages from r8 on, then exits on a port. */
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
                  + " e6 10" //        out 0x10, al
                  + " eb e8"); //      jmp start

  final KvmVm vm;
  final KvmDirtyRing ring;
  private final Kvm kvm = Kvm.open();
  private final KvmVcpu vcpu;
  private final Mapping low = Mapping.anonymous(GUEST_ADDRESS);
  private final Arena arena = Arena.ofShared();
  private final MemorySegment regs = arena.allocate(KvmLayouts.KVM_REGS);

  /**
   * @param withRing whether the VM has dirty rings
   */
  VcpuWriter(MemorySegment memory, boolean withRing) {
    vm = kvm.createVm();
    if (withRing) {
      vm.enableCap(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_BYTES);
    }
    MemorySegment bytes = low.segment();
    vm.setUserMemoryRegion(0, 0, 0, GUEST_ADDRESS, bytes.address());
    vm.setUserMemoryRegion(SLOT, 0, GUEST_ADDRESS, memory.byteSize(), memory.address());
    vcpu = vm.createVcpu(0, kvm.vcpuMmapSize());
    ring = withRing ? vcpu.mapDirtyRing(RING_BYTES) : null;
    bytes.set(JAVA_LONG, PML4, PDPT | TABLE);
    bytes.set(JAVA_LONG, PDPT, PD | TABLE);
    for (long i = 0; i < 512; i++) {
      bytes.set(JAVA_LONG, PD + 8 * i, i << 21 | LARGE_PAGE);
    }
    MemorySegment.copy(WRITE_PAGES, 0, bytes, JAVA_BYTE, CODE, WRITE_PAGES.length);
    vcpu.setCpuid2(kvm.getSupportedCpuid(arena));
    setSregs();
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

  private void reg(String name, long value) {
    regs.set(JAVA_LONG, KvmLayouts.offset(KvmLayouts.KVM_REGS, name), value);
  }

  /** Has the vCPU write a word to each of some pages. */
  void write(long firstPage, long count, long word) {
    regs.fill((byte) 0);
    reg("rax", word);
    reg("r8", GUEST_ADDRESS + firstPage * Pages.SIZE);
    reg("r9", count);
    reg("r10", Pages.SIZE);
    reg("rip", CODE);
    reg("rflags", 0x3002);
    vcpu.setRegs(regs);
    assertEquals(KvmConstants.KVM_EXIT_IO, vcpu.run());
  }

  @Override
  public void close() {
    if (ring != null) {
      ring.close();
    }
    vcpu.close();
    vm.close();
    kvm.close();
    low.close();
    arena.close();
  }
}
