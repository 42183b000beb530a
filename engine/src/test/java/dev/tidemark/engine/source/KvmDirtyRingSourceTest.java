package dev.tidemark.engine.source;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmVcpu;
import dev.tidemark.ffm.kvm.KvmVm;
import dev.tidemark.ffm.lab.MiniGuest;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The ring's source on the host's own KVM: several vCPUs, the smallest rings, full ones, and resets
 * that fail. Pages that were sent are compared with the guest's memory, which no count replaces.
 */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class KvmDirtyRingSourceTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final int VCPUS = 3;
  private static final long PAGES = 4096;

  private final SplittableRandom random = new SplittableRandom(SEED);
  private final List<KvmDirtyRing> rings = new ArrayList<>();
  private final List<KvmSlot> slots = new ArrayList<>();
  private MiniGuest guest;
  private long ringBytes;
  private DirtyTracker tracker;

  /** What the other side would have. */
  private Mapping copy;

  private static int ringCap(KvmVm vm) {
    int cap =
        vm.checkExtension(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0
            ? KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL
            : KvmConstants.KVM_CAP_DIRTY_LOG_RING;
    assumeTrue(vm.checkExtension(cap) > 0, "this KVM has no dirty ring");
    return cap;
  }

  /** Enables the smallest rings that the kernel takes: it keeps some entries for itself. */
  private void smallestRing(KvmVm vm) {
    for (ringBytes = Pages.SIZE; ; ringBytes *= 2) {
      try {
        vm.enableCap(ringCap(vm), ringBytes);
        return;
      } catch (LinuxException e) {
        assertTrue(e.errno() == Errno.EINVAL && ringBytes < 1 << 20, e.getMessage());
      }
    }
  }

  @BeforeEach
  void setUp() {
    guest = new MiniGuest(VCPUS, PAGES, 0, this::smallestRing);
    guest.vcpus.forEach(vcpu -> rings.add(vcpu.mapDirtyRing(ringBytes)));
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory())));
    slots.add(new KvmSlot(MiniGuest.SLOT, log(), 0, PAGES, MiniGuest.TEST_START, 0));
    copy = Mapping.anonymous(PAGES * Pages.SIZE);
  }

  @AfterEach
  void tearDown() {
    if (guest == null) {
      return;
    }
    tracker.close();
    rings.forEach(KvmDirtyRing::close);
    guest.close();
    copy.close();
  }

  private MemorySegment memory() {
    return guest.memory.segment().asSlice(MiniGuest.TEST_START, PAGES * Pages.SIZE);
  }

  private RamBlockLog log() {
    return tracker.logs().getFirst();
  }

  private KvmDirtyRingSource track(KvmDirtyRingSource.Reset reset) {
    return track(reset, () -> false);
  }

  private KvmDirtyRingSource track(KvmDirtyRingSource.Reset reset, BooleanSupplier slept) {
    var source = new KvmDirtyRingSource(guest.vm, rings, slots, () -> {}, reset, slept);
    tracker.add(source);
    tracker.start();
    round();
    assertEquals(0, round());
    return source;
  }

  private KvmDirtyRingSource track() {
    return track(guest.vm::resetDirtyRings);
  }

  /** Syncs, harvests and copies what is dirty. */
  private long round() {
    tracker.sync();
    return send();
  }

  private long send() {
    long pages = tracker.harvest();
    MemorySegment from = memory();
    RunCursor runs = log().epoch().runs();
    for (int found; (found = runs.batch()) > 0; ) {
      for (int run = 0; run < found; run++) {
        long at = runs.start(run) << Pages.SHIFT;
        long bytes = runs.length(run) << Pages.SHIFT;
        MemorySegment.copy(from, at, copy.segment(), at, bytes);
      }
    }
    tracker.commit();
    return pages;
  }

  private void assertNothingLost() {
    long at = memory().mismatch(copy.segment());
    assertEquals(-1, at, () -> "lost: page " + (at >> Pages.SHIFT) + ", -Dtidemark.seed=" + SEED);
  }

  /** Writes pages and comes out, with the ring emptied as often as it is full. */
  private static int write(
      MiniGuest guest,
      KvmVcpu vcpu,
      long first,
      long count,
      long stride,
      long value,
      Runnable full) {
    guest.program(vcpu, first, count, stride, value);
    int times = 0;
    while (true) {
      int reason = vcpu.run();
      switch (reason) {
        case KvmConstants.KVM_EXIT_IO -> {
          return times;
        }
        case KvmVcpu.INTERRUPTED, KvmVcpu.TRY_AGAIN -> {}
        case KvmConstants.KVM_EXIT_DIRTY_RING_FULL -> {
          times++;
          full.run();
        }
        default -> throw new AssertionError(KvmConstants.exitName(reason));
      }
    }
  }

  private static void neverFull() {
    throw new AssertionError("the ring is full");
  }

  private void write(int vcpu, long first, long count, long value) {
    write(guest, guest.vcpus.get(vcpu), first, count, 1, value, KvmDirtyRingSourceTest::neverFull);
  }

  /** The vCPUs write, and fill their rings again and again, while another thread syncs. */
  @Test
  void severalVcpusWithTheSmallestRingsLoseNothing() throws InterruptedException {
    KvmDirtyRingSource source = track();
    var failure = new AtomicReference<Throwable>();
    var full = new AtomicInteger();
    for (int phase = 0; phase < 4 * EFFORT; phase++) {
      var running = new AtomicInteger(VCPUS);
      List<Thread> threads = new ArrayList<>();
      for (int id = 0; id < VCPUS; id++) {
        KvmVcpu vcpu = guest.vcpus.get(id);
        SplittableRandom mine = random.split();
        long value = 1000L * phase + 100 * id;
        threads.add(
            Thread.ofPlatform()
                .start(
                    () -> {
                      try {
                        for (int i = 0; i < 20; i++) {
                          long stride = 1 + mine.nextInt(3);
                          long count = 1 + mine.nextLong(PAGES / stride);
                          long first = mine.nextLong(PAGES - (count - 1) * stride);
                          full.addAndGet(
                              write(guest, vcpu, first, count, stride, value + i, source::reap));
                        }
                      } catch (Throwable t) {
                        failure.compareAndSet(null, t);
                      } finally {
                        running.decrementAndGet();
                      }
                    }));
      }
      while (running.get() > 0) {
        round();
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertNull(failure.get(), () -> "-Dtidemark.seed=" + SEED + ": " + failure.get());
      round();
      assertNothingLost();
    }
    assertTrue(full.get() > 0, "no ring was ever full");
    assertEquals(0, tracker.failures(), () -> tracker.lastFailure().toString());
  }

  @Test
  void eachSlotsPagesGoToTheirPlaceInTheirLog() {
    tracker.close();
    long half = PAGES / 2;
    RamBlock low = new RamBlock("low", memory().asSlice(0, half << Pages.SHIFT));
    RamBlock high = new RamBlock("high", memory().asSlice(half << Pages.SHIFT));
    tracker = new DirtyTracker(List.of(low, high));
    guest.vm.setUserMemoryRegion(MiniGuest.SLOT, 0, MiniGuest.TEST_START, 0, memory().address());
    slots.clear();
    long[] starts = {0, 100, 1000, half, half + 7};
    for (int i = 0; i < starts.length; i++) {
      long end = i + 1 < starts.length ? starts[i + 1] : PAGES;
      RamBlockLog log = tracker.logs().get(starts[i] < half ? 0 : 1);
      slots.add(
          new KvmSlot(
              // Numbers in no order, and with gaps.
              30 - 7 * i,
              log,
              starts[i] - (starts[i] < half ? 0 : half),
              end - starts[i],
              MiniGuest.TEST_START + (starts[i] << Pages.SHIFT),
              0));
    }
    tracker.add(new KvmDirtyRingSource(guest.vm, rings, slots, () -> {}));
    tracker.start();
    tracker.sync();
    tracker.harvest();
    tracker.commit();
    for (int i = 0; i < 200; i++) {
      long page = i < starts.length ? starts[i] : random.nextLong(PAGES);
      write(i % VCPUS, page, 1, i);
      tracker.sync();
      assertEquals(1, tracker.harvest(), "-Dtidemark.seed=" + SEED);
      RamBlockLog log = tracker.logs().get(page < half ? 0 : 1);
      assertEquals(1, log.epoch().pages());
      RunCursor runs = log.epoch().runs();
      assertEquals(1, runs.batch());
      assertEquals(page < half ? page : page - half, runs.start(0));
      tracker.commit();
    }
    assertEquals(0, tracker.failures());
  }

  @Test
  void stoppedAndStartedAgainItLosesNothing() {
    track();
    for (int i = 0; i < 50; i++) {
      for (int vcpu = 0; vcpu < VCPUS; vcpu++) {
        write(vcpu, random.nextLong(PAGES - 80), 80, 10 * i + vcpu);
      }
      switch (random.nextInt(3)) {
        case 0 -> {
          tracker.stop();
          // Written while nobody looks.
          write(0, random.nextLong(PAGES - 300), 300, 10 * i + 5);
          tracker.start();
          assertEquals(PAGES, round());
        }
        case 1 -> round();
        default -> assertTrue(round() >= 80);
      }
      assertNothingLost();
    }
    assertEquals(0, tracker.failures());
  }

  /** As for a second migration, which maps the rings anew. */
  @Test
  void ringsThatAreMappedAgainAreNotBlind() {
    for (int migration = 0; migration < 4; migration++) {
      track();
      for (int vcpu = 0; vcpu < VCPUS; vcpu++) {
        write(vcpu, 100L * vcpu, 100, migration);
      }
      assertEquals(100 * VCPUS, round());
      assertNothingLost();
      tracker.close();
      rings.forEach(KvmDirtyRing::close);
      rings.clear();
      guest.vcpus.forEach(vcpu -> rings.add(vcpu.mapDirtyRing(ringBytes)));
      tracker = new DirtyTracker(List.of(new RamBlock("ram", memory())));
      slots.set(0, new KvmSlot(MiniGuest.SLOT, log(), 0, PAGES, MiniGuest.TEST_START, 0));
    }
  }

  @Test
  void theLastSyncGivesNoEntryBack() {
    var resets = new AtomicInteger();
    track(
        harvested -> {
          resets.incrementAndGet();
          return guest.vm.resetDirtyRings(harvested);
        });
    write(0, 5, 3, 10);
    write(1, 100, 30, 11);
    int before = resets.get();
    tracker.lastSync();
    assertEquals(33, send());
    assertNothingLost();
    assertEquals(before, resets.get());
    assertEquals(0, tracker.failures());
    // As after a migration that failed: the next one begins with every page.
    tracker.stop();
    assertEquals(before + 1, resets.get());
    tracker.start();
    assertEquals(PAGES, round());
    write(0, 5, 3, 12);
    write(1, 6, 40, 13);
    assertEquals(41, round());
    assertNothingLost();
    assertEquals(0, tracker.failures());
  }

  @Test
  void aSyncAfterTheLastCountsAllAsDirty() {
    track();
    write(0, 5, 3, 10);
    tracker.lastSync();
    assertEquals(3, send());
    // Unprotected: no ring tells of it.
    write(0, 5, 3, 11);
    assertEquals(PAGES, round());
    assertNothingLost();
    assertEquals(1, tracker.failures());
    write(0, 5, 3, 12);
    assertEquals(3, round(), "protected again");
    assertNothingLost();
    // Without entries nothing was left unprotected.
    tracker.lastSync();
    assertEquals(0, send());
    write(0, 5, 3, 13);
    assertEquals(3, round());
    assertNothingLost();
    assertEquals(1, tracker.failures());
  }

  /** A guest that is resumed at the source goes on at once, not only once tracking is off. */
  @Test
  void aVcpuWhoseRingIsFullAfterTheLastSyncRunsOn() {
    KvmDirtyRingSource source = track();
    fillEveryRing();
    tracker.lastSync();
    for (KvmVcpu vcpu : guest.vcpus) {
      while (vcpu.run() == KvmConstants.KVM_EXIT_DIRTY_RING_FULL) {
        source.reap();
      }
    }
    tracker.stop();
    tracker.start();
    assertEquals(PAGES, round());
    write(0, 5, 3, 12);
    assertEquals(3, round());
    assertNothingLost();
  }

  @Test
  void aVcpuWhoseRingIsFullRunsOnAfterAStop() {
    KvmDirtyRingSource source = track();
    for (boolean close : new boolean[] {false, true}) {
      fillEveryRing();
      if (close) {
        tracker.close();
      } else {
        tracker.stop();
      }
      for (KvmVcpu vcpu : guest.vcpus) {
        assertEquals(KvmConstants.KVM_EXIT_IO, vcpu.run(), "close: " + close);
      }
      // A vCPU's thread may have seen the full ring before.
      source.reap();
      if (!close) {
        tracker.start();
      }
    }
  }

  private void fillEveryRing() {
    for (KvmVcpu vcpu : guest.vcpus) {
      guest.program(vcpu, 0, PAGES, 1, 1);
      int reason = vcpu.run();
      if (reason == KvmConstants.KVM_EXIT_IO) {
        // Others had filled theirs with these pages before.
        continue;
      }
      assertEquals(KvmConstants.KVM_EXIT_DIRTY_RING_FULL, reason);
    }
  }

  /** The kernel's fault from 6.17 on, played: all entries are freed, but nothing is protected. */
  @Test
  void afterAnInterruptedResetEveryPageIsProtectedAndDirty() {
    var interrupted = new AtomicInteger();
    track(
        harvested -> {
          if (interrupted.get() == 0) {
            return guest.vm.resetDirtyRings(harvested);
          }
          interrupted.decrementAndGet();
          return unprotecting(harvested);
        });
    write(0, 5, 3, 10);
    interrupted.set(1);
    assertEquals(PAGES, round());
    assertEquals(1, tracker.failures());
    assertTrue(tracker.lastFailure().getMessage().contains("interrupted"));
    write(1, 4, 5, 20);
    assertEquals(5, round(), "these were protected again");
    assertNothingLost();
    assertEquals(1, tracker.failures());
  }

  /** Frees entries without protecting their pages: by a slot that is not there. */
  private boolean unprotecting(long harvested) {
    MemorySegment memory = memory();
    guest.vm.setUserMemoryRegion(MiniGuest.SLOT, 0, MiniGuest.TEST_START, 0, memory.address());
    guest.vm.resetDirtyRings(harvested);
    guest.vm.setUserMemoryRegion(
        MiniGuest.SLOT, 0, MiniGuest.TEST_START, memory.byteSize(), memory.address());
    return false;
  }

  /** As a stop does that comes after the last entry was counted. */
  @Test
  void afterAResetInWhichTheThreadSleptThePagesAboutTheLastEntryAreSentOnceMore() {
    var slept = new AtomicBoolean();
    KvmDirtyRingSource source =
        track(
            harvested ->
                slept.get() ? !unprotecting(harvested) : guest.vm.resetDirtyRings(harvested),
            slept::get);
    write(0, 100, 3, 10);
    slept.set(true);
    assertEquals(3, round());
    slept.set(false);
    assertEquals(127, source.alwaysDirtyPages());
    write(0, 100, 3, 20);
    assertEquals(0, round(), "no ring tells of it");
    tracker.lastSync();
    assertEquals(127, send());
    assertNothingLost();
    assertEquals(0, tracker.failures());
  }

  @Test
  void tooManySuchResetsAreAFailure() {
    track(guest.vm::resetDirtyRings, () -> true);
    int resets = 0;
    while (tracker.failures() == 0) {
      write(resets % VCPUS, 5, 1, resets);
      round();
      resets++;
    }
    assertEquals(257, resets);
    assertNothingLost();
    write(0, 5, 1, 1);
    assertEquals(1, round());
    assertEquals(1, tracker.failures());
  }

  @Test
  void aResetThatFailedAndThenSucceedsHidesNothing() {
    var failing = new AtomicInteger();
    track(
        harvested -> {
          if (failing.getAndDecrement() > 0) {
            throw new LinuxException("ioctl(KVM_RESET_DIRTY_RINGS)", Errno.ENODEV);
          }
          return guest.vm.resetDirtyRings(harvested);
        });
    for (int failures = 1; failures < 4; failures++) {
      long before = tracker.failures();
      write(0, 5, 1, 10 * failures);
      failing.set(failures);
      for (int i = 0; i < failures; i++) {
        assertEquals(PAGES, round());
        write(0, 5, 1, 10 * failures + i + 1);
      }
      assertEquals(before + failures, tracker.failures());
      round();
      assertNothingLost();
      write(0, 5, 1, 10 * failures + 9);
      assertEquals(1, round());
      assertNothingLost();
    }
  }

  /** Where logging cannot be switched either, nothing is known for as long. */
  @Test
  void whileNothingCanBeProtectedEachSyncMarksAllAndIsCounted() {
    var failing = new AtomicInteger();
    MemorySegment other = memory();
    KvmDirtyRingSource source =
        track(
            harvested -> {
              if (failing.getAndDecrement() > 0) {
                // Another slot in its place: this one can be set no more.
                guest.vm.setUserMemoryRegion(
                    MiniGuest.SLOT, 0, MiniGuest.TEST_START, 0, other.address());
                guest.vm.setUserMemoryRegion(
                    77, 0, MiniGuest.TEST_START, other.byteSize(), other.address());
                guest.vm.resetDirtyRings(harvested);
                return false;
              }
              return guest.vm.resetDirtyRings(harvested);
            });
    write(0, 5, 1, 1);
    failing.set(1);
    for (int i = 1; i < 4; i++) {
      assertEquals(PAGES, round());
      assertEquals(i, tracker.failures());
      write(0, 5, 2, 10 + i);
      // A vCPU is not to fail for it.
      source.reap();
    }
    guest.vm.setUserMemoryRegion(77, 0, MiniGuest.TEST_START, 0, other.address());
    guest.vm.setUserMemoryRegion(
        MiniGuest.SLOT, 0, MiniGuest.TEST_START, other.byteSize(), other.address());
    assertEquals(PAGES, round());
    assertEquals(4, tracker.failures());
    assertNothingLost();
    write(0, 5, 2, 20);
    assertEquals(2, round());
    assertNothingLost();
    assertEquals(4, tracker.failures());
  }

  @Test
  void anErrorLeavesEveryPageDirtyToo() {
    var error = new AtomicReference<Error>();
    track(
        harvested -> {
          if (error.get() != null) {
            throw error.getAndSet(null);
          }
          return guest.vm.resetDirtyRings(harvested);
        });
    for (Error each : List.of(new StackOverflowError(), new AssertionError("mine"))) {
      long before = tracker.failures();
      write(0, 5, 1, 1);
      error.set(each);
      assertSame(each, assertThrows(Error.class, tracker::sync));
      assertEquals(before + 1, tracker.failures());
      assertEquals(PAGES, send());
      write(0, 5, 1, 2);
      round();
      assertNothingLost();
      write(0, 5, 1, 3);
      assertEquals(1, round());
      assertNothingLost();
    }
  }

  @Test
  void aRingThatCannotBeReadLeavesTheOthersEntriesReset() {
    List<Long> resets = new ArrayList<>();
    track(
        harvested -> {
          resets.add(harvested);
          return guest.vm.resetDirtyRings(harvested);
        });
    rings.get(1).close();
    write(0, 0, 10, 1);
    write(2, 20, 30, 2);
    resets.clear();
    assertEquals(PAGES, round());
    assertEquals(List.of(40L), resets);
    assertEquals(1, tracker.failures());
    assertInstanceOf(ClosedException.class, tracker.lastFailure());
  }

  @Test
  void whatAReapOfAVcpusThreadFailedWithIsCountedAtTheNextSync() {
    var outcome = new AtomicReference<String>("real");
    KvmDirtyRingSource source =
        track(
            harvested ->
                switch (outcome.get()) {
                  case "interrupted" -> unprotecting(harvested);
                  case "failed" -> throw new LinuxException("reset", Errno.ENODEV);
                  default -> guest.vm.resetDirtyRings(harvested);
                });
    outcome.set("interrupted");
    for (int i = 0; i < 3; i++) {
      write(i, 5, 1, 1);
      source.reap();
      assertEquals(PAGES, log().dirtyPages(), "before the next harvest, whoever calls that");
    }
    assertEquals(0, tracker.failures());
    outcome.set("real");
    assertEquals(PAGES, round());
    assertEquals(1, tracker.failures(), "one answer was replaced");
    assertTrue(tracker.lastFailure().getMessage().startsWith("3 reaps failed"));
    assertEquals(0, round());
    assertEquals(1, tracker.failures(), "told once");

    outcome.set("failed");
    write(0, 5, 1, 2);
    assertThrows(LinuxException.class, source::reap, "the vCPU could not go on");
    outcome.set("real");
    assertEquals(PAGES, round());
    assertEquals(2, tracker.failures());
    assertNothingLost();
    assertEquals(0, round());
  }

  @Test
  void entriesOfASlotThatNobodyNamedAreAFailureAndNoVcpusEnd() {
    KvmDirtyRingSource source = track();
    long half = PAGES / 2 << Pages.SHIFT;
    MemorySegment memory = memory();
    guest.vm.setUserMemoryRegion(MiniGuest.SLOT, 0, MiniGuest.TEST_START, 0, memory.address());
    guest.vm.setUserMemoryRegion(
        9, KvmConstants.KVM_MEM_LOG_DIRTY_PAGES, MiniGuest.TEST_START, half, memory.address());
    write(0, 5, 1, 1);
    source.reap();
    assertEquals(PAGES, round());
    assertEquals(1, tracker.failures());
    guest.vm.setUserMemoryRegion(9, 0, MiniGuest.TEST_START, 0, memory.address());
    guest.vm.setUserMemoryRegion(
        MiniGuest.SLOT, 0, MiniGuest.TEST_START, memory.byteSize(), memory.address());
  }

  @Test
  void aSlotThatCannotBeLoggedLeavesLoggingOffForAll() {
    slots.add(new KvmSlot(5, log(), 0, 10, MiniGuest.TEST_START + (100 << Pages.SHIFT), 0));
    var source = new KvmDirtyRingSource(guest.vm, rings, slots, () -> {});
    assertEquals(Errno.EEXIST, assertThrows(LinuxException.class, source::start).errno());
    write(0, 0, 200, 1);
    assertEquals(0, rings.getFirst().harvest((_, _) -> {}), "not logged");
    source.close();
    slots.removeLast();
    track();
    assertFalse(tracker.failures() > 0);
    assertEquals(0, memory().get(ValueLayout.JAVA_LONG, 300 << Pages.SHIFT));
  }
}
