package dev.tidemark.bench.guest;

import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.tidemark.bench.guest.KvmGuest.Slot;
import dev.tidemark.bench.guest.KvmGuest.Tracking;
import dev.tidemark.ffm.NativeAccess;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.function.LongSupplier;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class KvmGuestTest extends GuestTests {
  @BeforeAll
  static void needsKvm() {
    var missing = KvmGuest.missing();
    assumeTrue(missing.isEmpty(), () -> "no KVM guest here: " + missing.orElseThrow());
  }

  @Override
  KvmGuest create(long ramBytes) {
    return KvmGuest.create(ramBytes, Tracking.NONE, 0);
  }

  /** What a tracker must do, as plainly as can be: one flag a page. */
  private static final class Tracker {
    private final KvmGuest guest;
    private final Tracking tracking;
    private final AtomicLongArray dirty;
    private final Arena arena = Arena.ofAuto();

    Tracker(KvmGuest guest, Tracking tracking) {
      this.guest = guest;
      this.tracking = tracking;
      this.dirty = new AtomicLongArray((int) guest.ram().pages());
      guest.onVmmWrite(
          (first, pages) -> {
            for (long page = first; page < first + pages; page++) {
              dirty.set((int) page, 1);
            }
          });
      guest.onRingFull(this::reap);
      guest.logDirtyPages(true);
      for (int page = 0; page < dirty.length(); page++) {
        dirty.set(page, 1);
      }
    }

    synchronized void reap() {
      int harvested = 0;
      for (KvmDirtyRing ring : guest.rings()) {
        harvested +=
            ring.harvest(
                (slot, page) -> dirty.set((int) (guest.slots().get(slot).firstPage() + page), 1));
      }
      assertTrue(guest.vm().resetDirtyRings(harvested));
    }

    private void bitmaps() {
      for (Slot slot : guest.slots()) {
        MemorySegment bitmap = arena.allocate(KvmVm.bitmapBytes(slot.pages()), 8);
        guest.vm().getDirtyLog(slot.id(), slot.pages(), bitmap);
        if (tracking == Tracking.MANUAL) {
          guest.vm().clearDirtyLog(slot.id(), 0, slot.pages(), bitmap);
        }
        for (long page = 0; page < slot.pages(); page++) {
          if ((bitmap.get(JAVA_LONG, page >> 6 << 3) >>> page & 1) != 0) {
            dirty.set((int) (slot.firstPage() + page), 1);
          }
        }
      }
    }

    /** Copies what was written since the last call; the first {@code skip} dirty pages not. */
    int copy(MemorySegment to, int skip) {
      if (tracking == Tracking.RING) {
        reap();
      } else {
        bitmaps();
      }
      int copied = 0;
      for (int page = 0; page < dirty.length(); page++) {
        if (dirty.getAndSet(page, 0) != 0 && skip-- <= 0) {
          long at = (long) page << GuestMemory.PAGE_SHIFT;
          to.asSlice(at, GuestMemory.PAGE)
              .copyFrom(guest.ram().memory().asSlice(at, GuestMemory.PAGE));
          copied++;
        }
      }
      return copied;
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = Tracking.class,
      names = {"PLAIN", "MANUAL", "RING"})
  void aTrackedGuestMovesWhileItRuns(Tracking tracking) throws InterruptedException {
    try (KvmGuest guest = KvmGuest.create(RAM, tracking, 0);
        KvmGuest other = create(RAM)) {
      assertEquals(2, guest.slots().size());
      guest.start();
      pass(guest);
      Tracker tracker = new Tracker(guest, tracking);
      MemorySegment to = other.ram().memory();
      assertEquals(guest.ram().pages(), tracker.copy(to, 0));
      for (int round = 0; round < 10; round++) {
        awaitPages(guest, 1000);
        assertTrue(tracker.copy(to, 0) >= 500);
      }
      guest.pause();
      tracker.copy(to, 0);
      assertEquals(MemoryDigest.of(guest.ram().memory()), MemoryDigest.of(to));
      other.loadState(guest.saveState());
      other.resume();
      pass(other);
      guest.logDirtyPages(false);
      guest.resume();
      pass(guest);
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = Tracking.class,
      names = {"PLAIN", "MANUAL", "RING"})
  void aPageThatTheTrackerLostIsNoticed(Tracking tracking) throws InterruptedException {
    try (KvmGuest guest = KvmGuest.create(RAM, tracking, 0);
        KvmGuest other = create(RAM)) {
      guest.start();
      pass(guest);
      Tracker tracker = new Tracker(guest, tracking);
      tracker.copy(other.ram().memory(), 0);
      pass(guest);
      awaitPages(guest, 1000);
      guest.pause();
      // More than there are mailbox and table pages, so that some are test pages.
      tracker.copy(other.ram().memory(), 100);
      other.loadState(guest.saveState());
      other.resume();
      assertFalse(other.awaitFullPass(LONG));
      assertTrue(other.error().isPresent());
    }
  }

  @Test
  @Timeout(value = 300, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void aFullRingGoesToItsReaper() throws InterruptedException {
    try (KvmGuest guest = KvmGuest.create(2 * RAM, Tracking.RING, 0)) {
      guest.start();
      Tracker tracker = new Tracker(guest, Tracking.RING);
      AtomicInteger full = new AtomicInteger();
      guest.onRingFull(
          () -> {
            full.incrementAndGet();
            tracker.reap();
          });
      await(guest, () -> full.get() >= 3);
      guest.pause();
      guest.resume();
      pass(guest);
      guest.onRingFull(null);
      while (guest.error().isEmpty()) {
        Thread.sleep(1);
      }
      assertTrue(guest.error().get().contains("ring"), guest.error().get());
    }
  }

  @Test
  @Timeout(value = 300, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void flushingBringsTheVcpuOutAndLetsItGoOn() throws InterruptedException {
    try (KvmGuest guest = create(RAM)) {
      guest.flushVcpus();
      guest.start();
      for (int i = 0; i < 1000; i++) {
        guest.flushVcpus();
      }
      pass(guest);
      guest.pause();
      guest.flushVcpus();
      guest.resume();
      pass(guest);
    }
  }

  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

  /** What a call of the kernel may cost, compiled or not: see {@link NativeAccess}. */
  private static final int PER_CALL = 40;

  /**
   * Heap bytes per call, rounded down because measuring costs a little. Code that is reached for
   * the first time allocates, so the best of some rounds counts: what allocates by nature does in
   * each.
   *
   * @param allocated bytes that the thread in question has allocated
   * @param calls makes the calls of a round and returns how many they were
   */
  private static long bytesPerCall(LongSupplier allocated, LongSupplier calls) {
    long best = Long.MAX_VALUE;
    for (int round = 0; round < 5; round++) {
      long before = allocated.getAsLong();
      long count = calls.getAsLong();
      best = Math.min(best, (allocated.getAsLong() - before) / count);
    }
    return best;
  }

  private static LongSupplier thousandTimes(Runnable body) {
    return () -> {
      for (int i = 0; i < 1000; i++) {
        body.run();
      }
      return 1000;
    };
  }

  @Test
  void runningAndReadingTheLogAllocatesNoMoreThanTheCalls() throws InterruptedException {
    try (KvmGuest guest = KvmGuest.create(RAM, Tracking.MANUAL, 0);
        Arena arena = Arena.ofConfined()) {
      guest.start();
      pass(guest);
      guest.logDirtyPages(true);
      Slot slot = guest.slots().getFirst();
      MemorySegment bitmap = arena.allocate(KvmVm.bitmapBytes(slot.pages()), 8);
      long reading =
          bytesPerCall(
              THREADS::getCurrentThreadAllocatedBytes,
              thousandTimes(
                  () -> {
                    guest.vm().getDirtyLog(slot.id(), slot.pages(), bitmap);
                    guest.vm().clearDirtyLog(slot.id(), 0, slot.pages(), bitmap);
                  }));
      assertTrue(reading <= 2 * PER_CALL, reading + " bytes");
      guest.logDirtyPages(false);
      long running =
          bytesPerCall(
              () -> THREADS.getThreadAllocatedBytes(guest.threadId()),
              () -> {
                long pages = guest.pagesChecked();
                while (guest.pagesChecked() < pages + 1000 * GuestBase.BATCH
                    && guest.error().isEmpty()) {
                  Thread.onSpinWait();
                }
                return (guest.pagesChecked() - pages) / GuestBase.BATCH;
              });
      assertTrue(running <= PER_CALL, running + " bytes");
      assertTrue(guest.error().isEmpty(), () -> "error: " + guest.error());
    }
  }

  @Test
  void reapingTheRingAllocatesNoMoreThanItsFiveCalls() throws InterruptedException {
    try (KvmGuest guest = KvmGuest.create(RAM, Tracking.RING, 0)) {
      KvmDirtyRing ring = guest.rings().getFirst();
      long[] sum = new long[1];
      KvmDirtyRing.Sink sink = (_, page) -> sum[0] += page;
      Object reaping = new Object();
      Runnable reap =
          () -> {
            synchronized (reaping) {
              assertTrue(guest.vm().resetDirtyRings(ring.harvest(sink)));
            }
          };
      guest.onRingFull(reap);
      guest.logDirtyPages(true);
      guest.start();
      long bytes = bytesPerCall(THREADS::getCurrentThreadAllocatedBytes, thousandTimes(reap));
      assertTrue(bytes <= 5 * PER_CALL, bytes + " bytes");
      awaitPages(guest, 1000);
      reap.run();
      assertTrue(sum[0] > 0);
    }
  }
}
