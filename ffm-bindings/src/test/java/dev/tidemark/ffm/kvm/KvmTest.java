package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.kvm.KvmConstants.*;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.ffm.Allocations;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.lab.MiniGuest;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** On the host's own KVM. */
class KvmTest {
  private static final int RING_BYTES = 65536;
  private static final KvmDirtyRing.Sink IGNORE = (_, _) -> {};

  private static void plain(KvmVm vm) {}

  private static void manual(KvmVm vm) {
    enableManual(vm, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
  }

  private static void initiallySet(KvmVm vm) {
    enableManual(vm, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
  }

  private static void enableManual(KvmVm vm, int flags) {
    int offered = vm.checkExtension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    assumeTrue((offered & flags) == flags, "this KVM has no manual protect with flags " + flags);
    vm.enableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags);
  }

  private static void ring(KvmVm vm) {
    vm.enableCap(ringCap(vm), RING_BYTES);
  }

  private static int ringCap(KvmVm vm) {
    int cap =
        vm.checkExtension(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0
            ? KVM_CAP_DIRTY_LOG_RING_ACQ_REL
            : KVM_CAP_DIRTY_LOG_RING;
    assumeTrue(vm.checkExtension(cap) > 0, "this KVM has no dirty ring");
    return cap;
  }

  private static void runToPort(MiniGuest guest) {
    assertEquals(KVM_EXIT_IO, guest.vcpu.run());
    assertEquals(MiniGuest.PORT, guest.vcpu.ioPort());
  }

  private static int errno(Runnable call) {
    return assertThrows(LinuxException.class, call::run).errno();
  }

  @Test
  void theHostSaysWhatItHas() {
    MiniGuest.assumeKvm();
    try (Kvm kvm = Kvm.open();
        Arena arena = Arena.ofConfined()) {
      assertTrue(kvm.vcpuMmapSize() >= KvmLayouts.KVM_RUN.byteSize());
      assertTrue(kvm.checkExtension(KVM_CAP_USER_MEMORY) > 0);
      assertTrue(kvm.checkExtension(KVM_CAP_IMMEDIATE_EXIT) > 0);
      assertTrue(kvm.getSupportedCpuid(arena).byteSize() > KvmLayouts.KVM_CPUID2.byteSize());
    }
  }

  @Test
  void somethingElseThanKvmIsRefused() {
    try (Fd zero = Fd.open("/dev/zero", Fd.O_RDWR)) {
      assertEquals(Errno.ENOTTY, errno(() -> Kvm.borrow(MiniGuest.number(zero))));
    }
  }

  @Test
  void theGuestWritesWhatItIsTold() {
    try (MiniGuest guest = new MiniGuest(64, 0, KvmTest::plain)) {
      guest.program(16, 8, 2);
      runToPort(guest);
      assertEquals(KVM_EXIT_IO_OUT, guest.vcpu.ioDirection());
      assertEquals(1, guest.vcpu.ioSize());
      assertEquals(1, guest.vcpu.ioCount());
      assertEquals(2, guest.vcpu.ioData());
      for (int page = 0; page < 64; page++) {
        assertEquals(page >= 16 && page < 32 && page % 2 == 0 ? 1 : 0, guest.word(page));
      }
    }
  }

  @Test
  void thePlainLogIsOverwrittenAndClearedByEachCall() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::plain);
        Arena arena = Arena.ofConfined()) {
      MemorySegment bitmap = arena.allocate(8, 8);
      guest.program(16, 8, 2);
      runToPort(guest);
      bitmap.set(JAVA_LONG, 0, 1);
      guest.vm.getDirtyLog(MiniGuest.SLOT, 64, bitmap);
      assertEquals(0x55550000L, bitmap.get(JAVA_LONG, 0));
      guest.vm.getDirtyLog(MiniGuest.SLOT, 64, bitmap);
      assertEquals(0, bitmap.get(JAVA_LONG, 0));
      guest.program(3, 1, 1);
      runToPort(guest);
      guest.vm.getDirtyLog(MiniGuest.SLOT, 64, bitmap);
      assertEquals(1 << 3, bitmap.get(JAVA_LONG, 0));
    }
  }

  /** The kernel writes for as many pages as the slot has, whatever the caller says. */
  @Test
  void aBitmapThatIsTooSmallForItsSlotIsNotWrittenPast() {
    try (MiniGuest guest = new MiniGuest(1024, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::plain);
        Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocate(4096, 8);
      memory.fill((byte) 0x55);
      for (long pages : new long[] {64, 1023, 1025}) {
        assertThrows(
            IllegalArgumentException.class,
            () -> guest.vm.getDirtyLog(MiniGuest.SLOT, pages, memory.asSlice(0, 136)));
      }
      assertThrows(
          IllegalArgumentException.class,
          () -> guest.vm.getDirtyLog(MiniGuest.SLOT, 1024, memory.asSlice(0, 127)));
      for (long i = 0; i < memory.byteSize(); i++) {
        assertEquals(0x55, memory.get(JAVA_BYTE, i), "byte " + i);
      }
      guest.vm.getDirtyLog(MiniGuest.SLOT, 1024, memory.asSlice(0, 128));
      assertEquals(0x55, memory.get(JAVA_BYTE, 128));
    }
  }

  @Test
  void aBitmapOfAClosedArenaIsRefused() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::manual)) {
      Arena arena = Arena.ofConfined();
      MemorySegment bitmap = arena.allocate(8, 8);
      arena.close();
      assertThrows(
          IllegalStateException.class, () -> guest.vm.getDirtyLog(MiniGuest.SLOT, 64, bitmap));
      assertThrows(
          IllegalStateException.class, () -> guest.vm.clearDirtyLog(MiniGuest.SLOT, 0, 64, bitmap));
    }
  }

  @Test
  void cpuidOfMoreEntriesThanThereAreIsRefused() {
    try (MiniGuest guest = new MiniGuest(64, 0, KvmTest::plain);
        Arena arena = Arena.ofConfined()) {
      MemorySegment cpuid = arena.allocate(KvmLayouts.KVM_CPUID2);
      for (int entries : new int[] {1, Integer.MAX_VALUE, -1}) {
        cpuid.set(JAVA_INT, 0, entries);
        assertThrows(IllegalArgumentException.class, () -> guest.vcpu.setCpuid2(cpuid));
      }
    }
  }

  @Test
  void withManualProtectOnlyClearClears() {
    try (MiniGuest guest = new MiniGuest(128, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::manual);
        Arena arena = Arena.ofConfined()) {
      MemorySegment bitmap = arena.allocate(16, 8);
      guest.program(64, 3, 1);
      runToPort(guest);
      for (int i = 0; i < 2; i++) {
        guest.vm.getDirtyLog(MiniGuest.SLOT, 128, bitmap);
        assertEquals(0, bitmap.get(JAVA_LONG, 0));
        assertEquals(0b111, bitmap.get(JAVA_LONG, 8));
      }
      MemorySegment two = arena.allocateFrom(JAVA_LONG, 0b101);
      guest.vm.clearDirtyLog(MiniGuest.SLOT, 64, 64, two);
      guest.vm.getDirtyLog(MiniGuest.SLOT, 128, bitmap);
      assertEquals(0b010, bitmap.get(JAVA_LONG, 8));
      runToPort(guest);
      guest.vm.getDirtyLog(MiniGuest.SLOT, 128, bitmap);
      assertEquals(0b111, bitmap.get(JAVA_LONG, 8), "what was cleared is seen again");
    }
  }

  @Test
  void initiallySetStartsWithEveryPage() {
    try (MiniGuest guest = new MiniGuest(70, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::initiallySet);
        Arena arena = Arena.ofConfined()) {
      MemorySegment bitmap = arena.allocate(16, 8);
      guest.vm.getDirtyLog(MiniGuest.SLOT, 70, bitmap);
      assertEquals(-1L, bitmap.get(JAVA_LONG, 0));
      assertEquals(0x3f, bitmap.get(JAVA_LONG, 8) & 0x3f);
    }
  }

  @Test
  void wrongArgumentsOfTheLogCallsAreTheKernelsErrors() {
    try (MiniGuest guest = new MiniGuest(192, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::manual);
        Arena arena = Arena.ofConfined()) {
      KvmVm vm = guest.vm;
      MemorySegment bitmap = arena.allocate(24, 8);
      long others = MiniGuest.TEST_START / Pages.SIZE;
      MemorySegment large = arena.allocate(KvmVm.bitmapBytes(others), 8);
      assertEquals(Errno.ENOENT, errno(() -> vm.getDirtyLog(0, others, large)));
      assertEquals(Errno.EINVAL, errno(() -> vm.getDirtyLog(1 << 15, 192, bitmap)));
      assertEquals(Errno.EINVAL, errno(() -> vm.clearDirtyLog(MiniGuest.SLOT, 1, 64, bitmap)));
      assertEquals(Errno.EINVAL, errno(() -> vm.clearDirtyLog(MiniGuest.SLOT, 0, 63, bitmap)));
      assertEquals(Errno.EINVAL, errno(() -> vm.resetDirtyRings(0)));
      assertEquals(Errno.EINVAL, errno(() -> vm.setUserMemoryRegion(5, 0, 1, Pages.SIZE, 0)));
      assertEquals(
          Errno.EEXIST,
          errno(
              () ->
                  vm.setUserMemoryRegion(
                      5, 0, MiniGuest.TEST_START, Pages.SIZE, guest.memory.segment().address())));
    }
  }

  @Test
  void aBitmapThatIsTooSmallNeverReachesTheKernel() {
    try (MiniGuest guest = new MiniGuest(65, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::plain);
        Arena arena = Arena.ofConfined()) {
      MemorySegment small = arena.allocate(15, 8);
      assertThrows(
          IllegalArgumentException.class, () -> guest.vm.getDirtyLog(MiniGuest.SLOT, 65, small));
      assertThrows(
          IllegalArgumentException.class,
          () -> guest.vm.clearDirtyLog(MiniGuest.SLOT, 0, 65, small));
      assertThrows(
          IllegalArgumentException.class,
          () -> guest.vm.getDirtyLog(MiniGuest.SLOT, 65, MemorySegment.ofArray(new long[2])));
      assertThrows(
          IllegalArgumentException.class,
          () -> guest.vm.clearDirtyLog(MiniGuest.SLOT, 0, 1L << 32, small));
    }
  }

  @Test
  void theRingGivesWrittenPagesInOrder() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        KvmDirtyRing ring = guest.vcpu.mapDirtyRing(RING_BYTES)) {
      assertEquals(4096, ring.capacity());
      assertEquals(0, ring.harvest(IGNORE));
      List<Long> pages = new ArrayList<>();
      for (int i = 0; i < 3; i++) {
        guest.program(16, 8, 2);
        runToPort(guest);
        pages.clear();
        int taken =
            ring.harvest(
                (slot, page) -> {
                  assertEquals(MiniGuest.SLOT, slot);
                  pages.add(page);
                });
        assertEquals(List.of(16L, 18L, 20L, 22L, 24L, 26L, 28L, 30L), pages);
        assertEquals(8, taken);
        assertEquals(0, ring.harvest(IGNORE), "taken once");
        resetAll(guest.vm, taken);
      }
    }
  }

  @Test
  void aFullRingStopsTheGuestAndNothingIsLost() {
    int count = 20_000;
    try (MiniGuest guest = new MiniGuest(count, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        KvmDirtyRing ring = guest.vcpu.mapDirtyRing(RING_BYTES)) {
      guest.program(0, count, 1);
      long[] seen = new long[count];
      int full = 0;
      int reason;
      while ((reason = guest.vcpu.run()) == KVM_EXIT_DIRTY_RING_FULL) {
        full++;
        resetAll(guest.vm, ring.harvest((_, page) -> seen[(int) page]++));
      }
      assertEquals(KVM_EXIT_IO, reason);
      resetAll(guest.vm, ring.harvest((_, page) -> seen[(int) page]++));
      assertTrue(full >= count / ring.capacity(), full + " exits for a full ring");
      // A write that filled the ring is done again after the exit, so its page may come twice.
      for (int page = 0; page < count; page++) {
        assertTrue(seen[page] == 1 || seen[page] == 2, "page " + page + ": " + seen[page]);
      }
    }
  }

  @Test
  void aPageThatTheSinkRefusedComesAgain() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        KvmDirtyRing ring = guest.vcpu.mapDirtyRing(RING_BYTES)) {
      guest.program(5, 3, 1);
      runToPort(guest);
      List<Long> pages = new ArrayList<>();
      KvmDirtyRing.Sink refuseTheSecond =
          (_, page) -> {
            if (pages.size() == 1) {
              throw new UnsupportedOperationException();
            }
            pages.add(page);
          };
      assertThrows(UnsupportedOperationException.class, () -> ring.harvest(refuseTheSecond));
      assertEquals(2, ring.harvest((_, page) -> pages.add(page)));
      assertEquals(List.of(5L, 6L, 7L), pages);
      resetAll(guest.vm, 3);
    }
  }

  @Test
  void wrongUsesOfTheRingAreTheKernelsErrors() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        Arena arena = Arena.ofConfined()) {
      KvmVm vm = guest.vm;
      MemorySegment bitmap = arena.allocate(8, 8);
      assertEquals(Errno.ENXIO, errno(() -> vm.getDirtyLog(MiniGuest.SLOT, 64, bitmap)));
      int cap = ringCap(vm);
      assertEquals(Errno.EINVAL, errno(() -> vm.enableCap(cap, RING_BYTES)), "once only");
      assertThrows(IllegalArgumentException.class, () -> guest.vcpu.mapDirtyRing(RING_BYTES - 16));
      try (Kvm kvm = Kvm.open();
          KvmVm other = kvm.createVm()) {
        assertEquals(Errno.EINVAL, errno(() -> other.enableCap(cap, 2048)));
        assertEquals(Errno.EINVAL, errno(() -> other.enableCap(cap, 3 * 65536)));
        assertEquals(Errno.E2BIG, errno(() -> other.enableCap(cap, 2 << 20)));
      }
    }
  }

  static void resetAll(KvmVm vm, int harvested) {
    assertTrue(vm.resetDirtyRings(harvested), "all protected again");
    assertTrue(vm.resetDirtyRings(0), "no more than were harvested");
  }

  @Test
  void aRingThatIsMappedAgainGoesOnWhereItWas() {
    try (MiniGuest guest = new MiniGuest(6000, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring)) {
      for (int mapping = 0; mapping < 5; mapping++) {
        try (KvmDirtyRing ring = guest.vcpu.mapDirtyRing(RING_BYTES)) {
          assertEquals(0, ring.harvest(IGNORE));
          guest.program(1000 * mapping, 1000, 1);
          runToPort(guest);
          assertEquals(1000, ring.harvest(IGNORE));
          resetAll(guest.vm, 1000);
        }
      }
    }
  }

  @Test
  void aRingThatAnotherOwnerHarvestedIsFoundAgain() throws IOException {
    try (MiniGuest guest = new MiniGuest(6000, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring)) {
      int number = numberOf("anon_inode:kvm-vcpu:0");
      for (int owner = 0; owner < 6; owner++) {
        try (KvmVcpu vcpu = KvmVcpu.borrow(number, guest.kvm.vcpuMmapSize());
            KvmDirtyRing ring = vcpu.mapDirtyRing(RING_BYTES)) {
          assertEquals(0, ring.harvest(IGNORE), "nothing to be found yet");
          for (int i = 0; i < 2; i++) {
            guest.program(900 * owner, 900, 1);
            runToPort(guest);
            List<Long> pages = new ArrayList<>();
            assertEquals(900, ring.harvest((_, page) -> pages.add(page)));
            assertEquals(900L * owner, pages.getFirst(), "in order");
            resetAll(guest.vm, 900);
          }
        }
      }
    }
  }

  /** The descriptor of this process that is such a file; the newest, if there are several. */
  private static int numberOf(String file) throws IOException {
    int number = -1;
    try (DirectoryStream<Path> fds = Files.newDirectoryStream(Path.of("/proc/self/fd"))) {
      for (Path fd : fds) {
        if (Files.isSymbolicLink(fd) && Files.readSymbolicLink(fd).toString().equals(file)) {
          number = Math.max(number, Integer.parseInt(fd.getFileName().toString()));
        }
      }
    }
    assertTrue(number >= 0, "no " + file);
    return number;
  }

  @Test
  void aRingIsMappedOnceAtATime() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        KvmDirtyRing _ = guest.vcpu.mapDirtyRing(RING_BYTES)) {
      assertThrows(IllegalStateException.class, () -> guest.vcpu.mapDirtyRing(RING_BYTES));
    }
  }

  @Test
  void aRingIsMappedWithTheSizeThatWasEnabled() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring)) {
      for (long bytes = Pages.SIZE; bytes <= 1 << 20; bytes *= 2) {
        if (bytes != RING_BYTES) {
          long wrong = bytes;
          var refused =
              assertThrows(IllegalArgumentException.class, () -> guest.vcpu.mapDirtyRing(wrong));
          assertTrue(refused.getMessage().contains("has 65536"), refused.getMessage());
        }
      }
      guest.vcpu.mapDirtyRing(RING_BYTES).close();
    }
    try (MiniGuest guest = new MiniGuest(64, 0, KvmTest::plain)) {
      var refused =
          assertThrows(IllegalArgumentException.class, () -> guest.vcpu.mapDirtyRing(RING_BYTES));
      assertTrue(refused.getMessage().contains("not enabled"), refused.getMessage());
    }
  }

  /** A number of entries that is not there is told, since pages may then be unprotected. */
  @Test
  void aResetOfAnotherNumberOfEntriesIsNotTaken() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        KvmDirtyRing ring = guest.vcpu.mapDirtyRing(RING_BYTES)) {
      guest.program(5, 3, 1);
      runToPort(guest);
      assertEquals(3, ring.harvest(IGNORE));
      assertFalse(guest.vm.resetDirtyRings(2));
      assertThrows(IllegalStateException.class, () -> guest.vm.resetDirtyRings(1));
    }
  }

  @Test
  void aResetLeavesTheThreadsSignalMaskAsItWas() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
        Arena arena = Arena.ofConfined()) {
      MemorySegment before = arena.allocate(128, 8);
      MemorySegment after = arena.allocate(128, 8);
      Libc.pthreadSigmask(0, MemorySegment.NULL, before);
      assertTrue(guest.vm.resetDirtyRings(0));
      Libc.pthreadSigmask(0, MemorySegment.NULL, after);
      assertEquals(-1, before.mismatch(after));
      guest.vm.close();
      assertThrows(ClosedException.class, () -> guest.vm.resetDirtyRings(0));
      Libc.pthreadSigmask(0, MemorySegment.NULL, after);
      assertEquals(-1, before.mismatch(after), "after a failure too");
    }
  }

  /**
   * Seen from outside, again and again: in a reset the thread blocks all signals, the C library's
   * own (32, 33) too, but for the synchronous ones; else it has its old mask.
   */
  @Test
  @Timeout(600)
  void aResetBlocksAllButTheSynchronousSignals() throws Exception {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring)) {
      var thread = new CompletableFuture<Integer>();
      var start = new CountDownLatch(1);
      var stop = new AtomicBoolean();
      var resets =
          new FutureTask<>(
              () -> {
                thread.complete(Libc.gettid());
                start.await();
                while (!stop.get()) {
                  guest.vm.resetDirtyRings(0);
                }
                return blocked(Path.of("/proc/thread-self/status"));
              });
      Thread.ofPlatform().start(resets);
      try {
        Path status = Path.of("/proc/self/task/" + thread.get() + "/status");
        long before = blocked(status);
        long all = before | ~bits(4, 5, 7, 8, 11, 31) & ~bits(9, 19);
        assertEquals(0, before & bits(32, 33), "the old mask");
        start.countDown();
        for (int inReset = 0, outside = 0; inReset < 10 || outside < 10; ) {
          assertFalse(resets.isDone(), "the resets ended");
          long now = blocked(status);
          if (now == before) {
            outside++;
          } else {
            assertEquals(Long.toHexString(all), Long.toHexString(now));
            inReset++;
          }
        }
        stop.set(true);
        assertEquals(before, resets.get(), "after the last reset");
      } finally {
        start.countDown();
        stop.set(true);
        resets.get();
      }
    }
  }

  private static long bits(int... signals) {
    return Arrays.stream(signals).mapToLong(signal -> 1L << signal - 1).sum();
  }

  /** The mask of signals that a thread's status file tells. */
  private static long blocked(Path status) throws IOException {
    for (String line : Files.readAllLines(status)) {
      if (line.startsWith("SigBlk:")) {
        return Long.parseUnsignedLong(line.substring(7).strip(), 16);
      }
    }
    throw new IOException("no SigBlk in " + status);
  }

  @Test
  void aResetAllocatesNoMoreThanItsFiveCalls() {
    try (MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring)) {
      long bytes = Allocations.perRun(() -> guest.vm.resetDirtyRings(0));
      // Signals off and on, twice a look at how often the thread slept, and the reset.
      assertTrue(bytes <= 5 * Allocations.PER_CALL, bytes + " bytes");
    }
  }

  @Test
  void immediateExitComesBackAtOnce() {
    try (MiniGuest guest = new MiniGuest(64, 0, KvmTest::plain)) {
      guest.vcpu.setImmediateExit(true);
      assertEquals(KvmVcpu.INTERRUPTED, guest.vcpu.run());
      assertEquals(0, guest.word(0), "the guest did not run");
      guest.vcpu.setImmediateExit(false);
      runToPort(guest);
    }
  }

  @Test
  void completingAnExitMovesTheInstructionPointerAndNothingElse() {
    try (MiniGuest guest = new MiniGuest(64, 0, KvmTest::plain);
        Arena arena = Arena.ofConfined()) {
      MemorySegment regs = arena.allocate(KvmLayouts.KVM_REGS);
      runToPort(guest);
      assertEquals(KvmVcpu.INTERRUPTED, guest.vcpu.completeIo());
      guest.vcpu.getRegs(regs);
      assertEquals(0x8000 + 22, regs.get(JAVA_LONG, MiniGuest.reg("rip")), "behind the out");
      guest.vcpu.setRegs(regs);
      runToPort(guest);
      assertEquals(2, guest.word(0), "it wrote its page once more, not twice");
    }
  }

  @Test
  void useAfterCloseThrows() {
    MiniGuest guest = new MiniGuest(64, KVM_MEM_LOG_DIRTY_PAGES, KvmTest::ring);
    KvmDirtyRing ring = guest.vcpu.mapDirtyRing(RING_BYTES);
    ring.close();
    guest.close();
    ring.close();
    guest.vcpu.close();
    assertThrows(ClosedException.class, () -> ring.harvest(IGNORE));
    assertThrows(ClosedException.class, guest.vcpu::run);
    assertThrows(ClosedException.class, guest.vcpu::exitReason);
    assertThrows(ClosedException.class, () -> guest.vcpu.setImmediateExit(true));
    assertThrows(ClosedException.class, () -> guest.vm.resetDirtyRings(0));
    assertThrows(ClosedException.class, () -> guest.vm.createVcpu(1, 4096));
    assertThrows(ClosedException.class, () -> guest.kvm.checkExtension(3));
  }

  @Test
  void whatIsBorrowedStaysOpen() {
    MiniGuest.assumeKvm();
    try (Fd kvmFd = Fd.open("/dev/kvm", Fd.O_RDWR);
        Fd vmFd = Fd.own(Ioctl.call(kvmFd, KvmRequests.KVM_CREATE_VM, 0), "VM");
        Fd vcpuFd = Fd.own(Ioctl.call(vmFd, KvmRequests.KVM_CREATE_VCPU, 0), "vCPU");
        Arena arena = Arena.ofConfined()) {
      Kvm kvm = Kvm.borrow(MiniGuest.number(kvmFd));
      KvmVm vm = KvmVm.borrow(MiniGuest.number(vmFd));
      KvmVcpu vcpu = KvmVcpu.borrow(MiniGuest.number(vcpuFd), kvm.vcpuMmapSize());
      vcpu.close();
      vm.close();
      kvm.close();
      assertThrows(ClosedException.class, () -> vm.checkExtension(3));
      assertTrue(Ioctl.call(kvmFd, KvmRequests.KVM_CHECK_EXTENSION, 3) > 0);
      assertTrue(Ioctl.call(vmFd, KvmRequests.KVM_CHECK_EXTENSION, 3) > 0);
      MemorySegment regs = arena.allocate(KvmLayouts.KVM_REGS);
      regs.fill((byte) -1);
      assertEquals(0, Ioctl.call(vcpuFd, KvmRequests.KVM_GET_REGS, regs));
      assertEquals(0, regs.get(JAVA_BYTE, 0), "written by the kernel");
    }
  }

  @Test
  void segmentsThatAreTooSmallNeverReachTheKernel() {
    try (MiniGuest guest = new MiniGuest(64, 0, KvmTest::plain);
        Arena arena = Arena.ofConfined()) {
      MemorySegment small = arena.allocate(143, 8);
      assertThrows(IllegalArgumentException.class, () -> guest.vcpu.getRegs(small));
      assertThrows(IllegalArgumentException.class, () -> guest.vcpu.getSregs(small));
      MemorySegment cpuid = arena.allocate(8 + 40, 8);
      cpuid.set(java.lang.foreign.ValueLayout.JAVA_INT, 0, 2);
      assertThrows(IllegalArgumentException.class, () -> guest.vcpu.setCpuid2(cpuid));
    }
  }
}
