package dev.tidemark.bench.guest;

import static dev.tidemark.ffm.kvm.KvmConstants.KVM_CAP_DIRTY_LOG_RING;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_EXIT_DIRTY_RING_FULL;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_EXIT_IO;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_MEM_LOG_DIRTY_PAGES;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmKick;
import dev.tidemark.ffm.kvm.KvmLayouts;
import dev.tidemark.ffm.kvm.KvmVcpu;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.locks.LockSupport;

/**
 * A self-checking guest in a VM of its own: one vCPU in 64-bit mode at CPL 3 (an ordinary KVM host
 * runs that as any other, a nested one without hardware virtualization runs nothing else natively),
 * its RAM block in two memory slots, physical address 0 being the block's start.
 *
 * <p>Dirty logging is off until {@link #logDirtyPages}.
 */
public final class KvmGuest extends GuestBase {
  /** How the VM can track written pages; fixed when it is created. */
  public enum Tracking {
    /** Not at all: on the receiving side. */
    NONE,
    /** {@code KVM_GET_DIRTY_LOG} clears. */
    PLAIN,
    /** {@code KVM_CLEAR_DIRTY_LOG} clears. */
    MANUAL,
    /** A dirty ring of {@link #RING_BYTES} bytes. */
    RING
  }

  /**
   * A memory slot of the VM.
   *
   * @param id its number
   * @param firstPage pages from the start of the RAM block; the same as the guest's page number
   * @param pages its length in pages
   */
  public record Slot(int id, long firstPage, long pages) {}

  /** Bytes of a vCPU's dirty ring: 4096 entries. */
  public static final long RING_BYTES = 65536;

  private static final int KIND = 1;
  private static final long FLUSH_POLL_NANOS = 10_000;

  /** A table's entry: present, writable, user, accessed; so the MMU has nothing to write there. */
  private static final long TABLE = 0x27;

  /** As TABLE, and dirty, and a page of 2 MiB. */
  private static final long LARGE_PAGE = 0xe7;

  private final Arena arena = Arena.ofShared();
  private final MemorySegment regs = arena.allocate(KvmLayouts.KVM_REGS);
  private final MemorySegment sregs = arena.allocate(KvmLayouts.KVM_SREGS);
  private final KvmVm vm;
  private final KvmVcpu vcpu;
  private final List<KvmDirtyRing> rings;
  private final List<Slot> slots;

  /** Odd while the vCPU's thread is in {@code KVM_RUN}; only that thread changes it. */
  private volatile long phase;

  private volatile KvmKick kick;
  private volatile Runnable ringFull;

  private KvmGuest(
      GuestMemory map,
      Mapping memory,
      long rate,
      KvmVm vm,
      KvmVcpu vcpu,
      List<KvmDirtyRing> rings) {
    super(map, memory, new RamBlock("ram", memory.segment()), KIND, rate);
    this.vm = vm;
    this.vcpu = vcpu;
    this.rings = rings;
    long pages = map.bytes >> GuestMemory.PAGE_SHIFT;
    long half = pages / 2 & -512;
    if (half == 0) {
      half = pages / 2;
    }
    this.slots = List.of(new Slot(0, 0, half), new Slot(1, half, pages - half));
  }

  /**
   * Why this host cannot run such a guest.
   *
   * @return empty if it can; else one line
   */
  public static Optional<String> missing() {
    String arch = System.getProperty("os.arch");
    if (!arch.equals("amd64")) {
      return Optional.of("the KVM guest's program is for x86-64, not " + arch);
    }
    return Kvm.missing();
  }

  /**
   * Creates a VM with zero memory.
   *
   * @param ramBytes bytes of RAM, whole pages, from 4 MiB and 64 pages to 256 GiB
   * @param tracking how it can track written pages
   * @param pagesPerSecond see {@link #setRate}
   * @throws dev.tidemark.ffm.LinuxException if KVM refuses
   */
  public static KvmGuest create(long ramBytes, Tracking tracking, long pagesPerSecond) {
    GuestMemory map = new GuestMemory(ramBytes);
    Mapping memory = null;
    KvmVm vm = null;
    KvmVcpu vcpu = null;
    List<KvmDirtyRing> rings = List.of();
    KvmGuest guest;
    try (Kvm kvm = Kvm.open();
        Arena arena = Arena.ofConfined()) {
      memory = Mapping.anonymous(ramBytes);
      vm = kvm.createVm();
      enable(vm, tracking);
      vcpu = vm.createVcpu(0, kvm.vcpuMmapSize());
      // What the mode registers may hold depends on it.
      vcpu.setCpuid2(kvm.getSupportedCpuid(arena));
      if (tracking == Tracking.RING) {
        rings = List.of(vcpu.mapDirtyRing(RING_BYTES));
      }
      guest = new KvmGuest(map, memory, pagesPerSecond, vm, vcpu, rings);
      guest.logDirtyPages(false);
    } catch (RuntimeException e) {
      rings.forEach(KvmDirtyRing::close);
      if (vcpu != null) {
        vcpu.close();
      }
      if (vm != null) {
        vm.close();
      }
      if (memory != null) {
        memory.close();
      }
      throw e;
    }
    guest.launch("guest vcpu 0");
    return guest;
  }

  private static void enable(KvmVm vm, Tracking tracking) {
    switch (tracking) {
      case NONE, PLAIN -> {}
      case MANUAL ->
          vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
      case RING ->
          vm.enableCap(
              vm.checkExtension(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0
                  ? KVM_CAP_DIRTY_LOG_RING_ACQ_REL
                  : KVM_CAP_DIRTY_LOG_RING,
              RING_BYTES);
    }
  }

  /** The VM, closed with this guest. */
  public KvmVm vm() {
    return vm;
  }

  /** The vCPU, closed with this guest, and run by its thread only. */
  public KvmVcpu vcpu() {
    return vcpu;
  }

  /** The VM's memory slots, in the order of their pages. */
  public List<Slot> slots() {
    return slots;
  }

  /** The dirty rings of its vCPUs, closed with this guest; none unless created with RING. */
  public List<KvmDirtyRing> rings() {
    return rings;
  }

  /**
   * Switches dirty logging of all slots on or off, at any time. Switching forgets what was logged.
   */
  public void logDirtyPages(boolean on) {
    for (Slot slot : slots) {
      long start = slot.firstPage << GuestMemory.PAGE_SHIFT;
      vm.setUserMemoryRegion(
          slot.id,
          on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
          start,
          slot.pages << GuestMemory.PAGE_SHIFT,
          ram.address() + start);
    }
  }

  /**
   * Sets what the vCPU's thread does when a ring is full: it must harvest and reset the rings, or
   * the guest does not get on. It must not wait for anything that a caller of {@link #pause()} may
   * hold.
   */
  public void onRingFull(Runnable action) {
    ringFull = action;
  }

  /**
   * Makes the vCPU leave {@code KVM_RUN} once, if it is in there: what the hardware has logged
   * until now is in its dirty ring when this returns.
   */
  public void flushVcpus() {
    long seen = phase;
    while ((seen & 1) != 0 && phase == seen) {
      kick();
      LockSupport.parkNanos(FLUSH_POLL_NANOS);
    }
  }

  @Override
  void threadStarts() {
    kick = KvmKick.onThisThread(vcpu);
  }

  @Override
  void threadEnds() {
    KvmKick mine = kick;
    if (mine != null) {
      mine.close();
    }
  }

  @Override
  void kick() {
    KvmKick mine = kick;
    if (mine != null) {
      mine.kick();
    }
  }

  @Override
  void runGuest() {
    long exit = 0;
    while (!stop) {
      if (exit == 0) {
        ran(System.nanoTime());
      }
      int reason;
      phase++;
      try {
        reason = vcpu.run();
      } finally {
        phase++;
      }
      exit = System.nanoTime();
      serve(reason);
    }
    if (exit != 0) {
      left(exit);
    }
    kick.consume();
    int reason;
    while ((reason = vcpu.completeIo()) != KvmVcpu.INTERRUPTED && error().isEmpty()) {
      serve(reason);
    }
  }

  private void serve(int reason) {
    switch (reason) {
      case KVM_EXIT_IO -> port(vcpu.ioPort());
      case KvmVcpu.INTERRUPTED -> kick.consume();
      case KvmVcpu.TRY_AGAIN -> Thread.onSpinWait();
      case KVM_EXIT_DIRTY_RING_FULL -> {
        Runnable action = ringFull;
        if (action == null) {
          fail("the dirty ring is full and nobody harvests it");
        } else {
          action.run();
        }
      }
      default -> {
        vcpu.getRegs(regs);
        fail(
            String.format(
                Locale.ROOT,
                "%s at rip 0x%x (kvm_run union: 0x%x 0x%x)",
                KvmConstants.exitName(reason),
                reg("rip"),
                vcpu.kvmRun().get(JAVA_LONG, 32),
                vcpu.kvmRun().get(JAVA_LONG, 40)));
      }
    }
  }

  private void port(int port) {
    if (port == GuestProgram.PORT_TICK) {
      tick(BATCH);
      return;
    }
    vcpu.getRegs(regs);
    MemorySegment memory = ram.memory();
    fail(
        switch (port) {
          case GuestProgram.PORT_BAD_PAGE ->
              PageFormat.problem(memory, reg("rbx") >> GuestMemory.PAGE_SHIFT, reg("rbp") - 1);
          case GuestProgram.PORT_BAD_MAILBOX -> Mailbox.problem(memory, reg("r13"));
          default -> "the guest used port " + port;
        });
  }

  private long reg(String name) {
    return regs.get(JAVA_LONG, KvmLayouts.offset(KvmLayouts.KVM_REGS, name));
  }

  private void setReg(String name, long value) {
    regs.set(JAVA_LONG, KvmLayouts.offset(KvmLayouts.KVM_REGS, name), value);
  }

  @Override
  void prepare() {
    MemorySegment memory = ram.memory();
    // Without this every page would cost two faults, a reading and a writing one, in the guest.
    for (long at = 0; at < map.bytes; at += GuestMemory.PAGE) {
      memory.set(JAVA_BYTE, at, (byte) 0);
    }
    memory.set(JAVA_LONG, GuestMemory.PML4, GuestMemory.PDPT | TABLE);
    long largePages = (map.bytes + (1 << 21) - 1) >> 21;
    for (long i = 0; i < largePages; i++) {
      memory.set(JAVA_LONG, GuestMemory.DIRECTORIES + 8 * i, i << 21 | LARGE_PAGE);
    }
    for (long gib = 0; gib << 9 < largePages; gib++) {
      long directory = GuestMemory.DIRECTORIES + (gib << GuestMemory.PAGE_SHIFT);
      memory.set(JAVA_LONG, GuestMemory.PDPT + 8 * gib, directory | TABLE);
    }
    byte[] program = GuestProgram.assemble();
    MemorySegment.copy(program, 0, memory, JAVA_BYTE, GuestMemory.PROGRAM, program.length);
    setModeRegisters();
    regs.fill((byte) 0);
    setReg("rbx", GuestMemory.TEST);
    setReg("rbp", 1);
    setReg("r8", map.stride << GuestMemory.PAGE_SHIFT);
    setReg("r9", map.bytes);
    setReg("r10", map.testPages << GuestMemory.PAGE_SHIFT);
    setReg("r12", BATCH);
    setReg("r13", 0);
    setReg("r14", GuestMemory.CONTROL);
    setReg("rip", GuestMemory.PROGRAM);
    // The bit that is always 1, and IOPL 3, so that CPL 3 may use ports.
    setReg("rflags", 0x3002);
    vcpu.setRegs(regs);
  }

  /** 64-bit mode at CPL 3, with paging. */
  private void setModeRegisters() {
    vcpu.getSregs(sregs);
    segment("cs", 0x33, 11, 0, 1);
    for (String data : List.of("ds", "es", "fs", "gs", "ss")) {
      segment(data, 0x2b, 3, 1, 0);
    }
    // PG, NE, ET, MP, PE.
    sregs.set(JAVA_LONG, sreg("cr0"), 0x8000_0033L);
    sregs.set(JAVA_LONG, sreg("cr3"), GuestMemory.PML4);
    // OSXMMEXCPT, OSFXSR, PAE.
    sregs.set(JAVA_LONG, sreg("cr4"), 0x620);
    // LMA, LME.
    sregs.set(JAVA_LONG, sreg("efer"), 0x500);
    vcpu.setSregs(sregs);
  }

  private static long sreg(String... path) {
    return KvmLayouts.offset(KvmLayouts.KVM_SREGS, path);
  }

  private void segment(String name, int selector, int type, int db, int l) {
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

  @Override
  int stateBytes() {
    return (int) (KvmLayouts.KVM_REGS.byteSize() + KvmLayouts.KVM_SREGS.byteSize());
  }

  @Override
  void save(ByteBuffer state) {
    vcpu.getRegs(regs);
    vcpu.getSregs(sregs);
    state.put(regs.asByteBuffer()).put(sregs.asByteBuffer());
  }

  @Override
  void load(ByteBuffer state) {
    read(state, regs);
    read(state, sregs);
    vcpu.setSregs(sregs);
    vcpu.setRegs(regs);
  }

  private static void read(ByteBuffer state, MemorySegment to) {
    int bytes = (int) to.byteSize();
    to.copyFrom(MemorySegment.ofBuffer(state.slice(state.position(), bytes)));
    state.position(state.position() + bytes);
  }

  @Override
  void free() {
    rings.forEach(KvmDirtyRing::close);
    vcpu.close();
    vm.close();
    arena.close();
  }
}
