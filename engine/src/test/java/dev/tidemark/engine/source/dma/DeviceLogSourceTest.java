package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.DeviceLogSource.REPORT_WAITS;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static dev.tidemark.engine.source.dma.LogLab.PAGE;
import static dev.tidemark.engine.source.dma.LogLab.iova;
import static dev.tidemark.engine.source.dma.LogLab.range;
import static dev.tidemark.engine.source.dma.LogLab.shifted;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.source.plan.DeviceRanges;
import dev.tidemark.engine.source.plan.DeviceRanges.Range;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.lab.DmaDevice;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Devices that write and log, against their own record of what they wrote; in the lab. */
@Tag("lab-mock")
class DeviceLogSourceTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());

  static {
    System.out.println("DeviceLogSourceTest: -Dtidemark.seed=" + SEED);
  }

  @Test
  void oneCallADeviceReportsIntoThePlaneItself() {
    try (LogLab lab = new LogLab(3, REPORT_WAITS, 8192, 64)) {
      // As a PC: a hole and a ROM in the middle, all at the same distance from its place.
      lab.map(0, 160, 0, 0, true);
      lab.map(192, 64, 1, 0, false);
      lab.map(256, 4000, 0, 256, true);
      lab.map(4256, 1, 0, 4256, true);
      lab.start();
      LogCounters before = lab.counters(0);
      assertEquals(set(), lab.take(0));
      lab.write(0, 0, 159, 4256);
      lab.write(1, 1, 159, 300);
      lab.write(2, 2, 4000);
      assertEquals(set(0, 1, 2, 159, 300, 4000, 4256), lab.take(0));
      assertEquals(set(), lab.take(0));
      LogCounters used = lab.counters(0).since(before);
      assertEquals(3 * 3, used.queries());
      assertEquals(0, used.mergedWords());
      assertEquals(0, lab.source.replans());
    }
  }

  private static boolean isReporting(Thread thread) {
    return Arrays.stream(thread.getStackTrace())
        .anyMatch(frame -> frame.getMethodName().equals("dmaLoggingReport"));
  }

  /** Two reports into the same words at once lose bits: the kernel ORs without a lock. */
  @Test
  void devicesAreAskedOneAfterTheOtherWhoeverAsks() throws InterruptedException {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 512, 0, 8, true);
      lab.map(600, 8, 0, 600, true);
      lab.start();
      lab.write(0, 5);
      lab.write(1, 6);
      DmaDevice first = lab.devices.get(0);
      DmaDevice second = lab.devices.get(1);
      first.holdMarks();
      Thread writer = new Thread(() -> lab.write(0, 7));
      writer.start();
      while (first.inFlight() == 0) {
        Thread.sleep(1);
      }
      Thread sync = new Thread(lab.tracker::sync);
      sync.start();
      while (!isReporting(sync)) {
        assertTrue(sync.isAlive());
        Thread.sleep(1);
      }
      List<Thread> others =
          List.of(new Thread(lab.source::sync), new Thread(() -> lab.unmap(600, 8)));
      for (Thread other : others) {
        other.start();
        while (other.getState() != Thread.State.WAITING
            && other.getState() != Thread.State.BLOCKED) {
          assertTrue(other.isAlive());
          assertFalse(isReporting(other), "while another report is under way");
          Thread.sleep(1);
        }
      }
      assertEquals(0, second.reports());
      assertTrue(sync.isAlive());
      first.releaseMarks();
      writer.join();
      sync.join();
      for (Thread other : others) {
        other.join();
      }
      assertTrue(second.reports() >= 3);
      assertEquals(set(13, 14, 15), lab.harvest(0));
    }
  }

  @Test
  void whatDoesNotBeginOnAByteIsReportedDirectlyFromTheNextOneOn() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 4096)) {
      lab.map(5, 2000, 0, 3, true);
      lab.start();
      LogCounters before = lab.counters(0);
      lab.write(0, 5, 9, 10, 1500, 2004);
      assertEquals(set(3, 7, 8, 1498, 2002), lab.take(0));
      LogCounters used = lab.counters(0).since(before);
      assertEquals(2, used.queries());
      assertEquals(1, used.mergedWords(), "five pages of a word");
    }
  }

  @Test
  void everyAlignmentAndLengthLandsExactly() {
    var random = new SplittableRandom(SEED);
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 3000, 500)) {
      lab.source.expect(iova(0), 1L << 30, false);
      lab.start();
      for (int trial = 0; trial < 60; trial++) {
        String at = "seed " + SEED + ", trial " + trial;
        int pages = 1 + random.nextInt(trial % 3 == 0 ? 2000 : 140);
        int page = random.nextInt(3000 - pages);
        int other = 1 + random.nextInt(200);
        int otherPage = random.nextInt(500 - other);
        long first = random.nextInt(100_000);
        lab.map(first, pages, 0, page, true);
        lab.map(first + pages, other, 1, otherPage, true);
        BitSet expected = new BitSet();
        BitSet expectedOther = new BitSet();
        for (int i = 0; i < 1 + random.nextInt(10); i++) {
          int written = random.nextInt(10) == 0 ? pages - 1 : random.nextInt(pages);
          lab.write(random.nextInt(2), first + written);
          expected.set(page + written);
          written = random.nextInt(other);
          lab.write(random.nextInt(2), first + pages + written);
          expectedOther.set(otherPage + written);
        }
        lab.tracker.sync();
        lab.tracker.harvest();
        assertEquals(expected, LabDma.pagesOf(lab.log(0).epoch()), at);
        assertEquals(expectedOther, LabDma.pagesOf(lab.log(1).epoch()), at);
        lab.tracker.commit();
        assertEquals(set(), lab.take(0), at);
        assertEquals(pages + other, lab.unmap(first, pages + other), at);
        assertEquals(set(), lab.take(0), at);
      }
      assertEquals(0, lab.tracker.failures());
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1 << 12, 1 << 16, 1 << 21})
  void aCoarseLogMarksItsWholePagesAndTakesNothingFromNeighbours(int tracked) {
    var random = new SplittableRandom(SEED);
    int group = (int) (tracked / PAGE);
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 8192, 1001)) {
      lab.devices.get(0).trackIn(tracked);
      // Pieces that share pages of the log, in two blocks, one of them backwards.
      long[][] pieces = {
        {3, 1000, 0, 7100}, {1003, 1001, 1, 0}, {2004, 2100, 0, 8}, {4200, 9, 0, 0}
      };
      for (long[] piece : pieces) {
        lab.map(piece[0], piece[1], (int) piece[2], piece[3], true);
      }
      lab.start();
      for (int round = 0; round < 20; round++) {
        String at = "seed " + SEED + ", round " + round;
        BitSet[] must = {new BitSet(), new BitSet()};
        BitSet[] may = {new BitSet(), new BitSet()};
        for (int i = 0; i < 5; i++) {
          long[] hit = pieces[random.nextInt(pieces.length)];
          long written = hit[0] + random.nextLong(hit[1]);
          lab.write(i & 1, written);
          must[(int) hit[2]].set((int) (hit[3] + written - hit[0]));
          for (long[] piece : pieces) {
            long first = Math.max(piece[0], (LogLab.BASE + written & -group) - LogLab.BASE);
            long end =
                Math.min(
                    piece[0] + piece[1], (LogLab.BASE + written & -group) - LogLab.BASE + group);
            if (first < end) {
              may[(int) piece[2]].set(
                  (int) (piece[3] + first - piece[0]), (int) (piece[3] + end - piece[0]));
            }
          }
        }
        lab.tracker.sync();
        lab.tracker.harvest();
        for (int block = 0; block < 2; block++) {
          BitSet taken = LabDma.pagesOf(lab.log(block).epoch());
          BitSet lost = (BitSet) must[block].clone();
          lost.andNot(taken);
          assertEquals(set(), lost, at);
          taken.andNot(may[block]);
          assertEquals(set(), taken, at);
        }
        lab.tracker.commit();
      }
      assertEquals(0, lab.tracker.failures());
      // An unmap reads whole pages of the log, and with them what the neighbours wrote.
      lab.write(0, 1002, 1003, 2003, 2004);
      assertEquals(1001, lab.unmap(1003, 1001));
      lab.tracker.sync();
      lab.tracker.harvest();
      BitSet first = LabDma.pagesOf(lab.log(0).epoch());
      BitSet second = LabDma.pagesOf(lab.log(1).epoch());
      assertTrue(first.get(8099) && first.get(8) && second.get(0) && second.get(1000));
      lab.tracker.commit();
    }
  }

  @Test
  void rangesAreWideAndFewerWhereTheDeviceTakesFewer() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 4096)) {
      lab.map(0, 1024, 0, 0, true);
      lab.source.map(5L << 30, 1024 * PAGE, lab.log(0), 1024, true);
      lab.source.map(1L << 45, 1024 * PAGE, lab.log(0), 2048, false);
      lab.source.expect(1L << 40, 1L << 30, true);
      lab.start();
      assertEquals(
          List.of(
              new Range(0, 0xFFFF_FFFFL),
              new Range(5L << 30, (8L << 30) - 1),
              new Range(1L << 40, (2L << 40) - 1)),
          lab.source.ranges());
      lab.write(0, 7);
      lab.devices.get(0).write((5L << 30) + PAGE, 1);
      assertEquals(set(7, 1025), lab.take(0));
      // One that joins ranges takes the three, and what is between.
      lab.tracker.stop();
      lab.devices.get(0).maxRanges(1);
      lab.devices.get(0).strict(true);
      lab.start();
      lab.write(0, 9);
      assertEquals(set(9), lab.take(0));
      assertEquals(0, lab.tracker.failures());
    }
  }

  @Test
  void aMappingOutsideOfTheRangesStartsAnewAndEverythingIsDirtyOnce() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 4096)) {
      lab.map(0, 1000, 0, 0, true);
      lab.map(2000, 10, 0, 3000, false);
      lab.start();
      // Inside of the wide ranges: tracked from its first moment, and clean.
      lab.map(5000, 100, 0, 1000, true);
      lab.write(1, 5001);
      assertEquals(set(1001), lab.take(0));
      lab.source.map(1L << 40, 8 * PAGE, lab.log(0), 2000, false);
      assertEquals(0, lab.source.replans());
      lab.write(0, 1);
      lab.source.map(1L << 39, 8 * PAGE, lab.log(0), 2000, true);
      assertEquals(1, lab.source.replans());
      BitSet all = range(0, 1100);
      all.set(2000, 2008);
      assertEquals(all, lab.take(0));
      lab.devices.get(0).write((1L << 39) + PAGE, 1);
      lab.write(1, 2);
      assertEquals(set(2, 2001), lab.take(0));
      // What was expected needs none.
      lab.source.expect(1L << 50, 1L << 30, false);
      lab.tracker.stop();
      lab.start();
      lab.source.map(1L << 50, 8 * PAGE, lab.log(0), 2100, true);
      assertEquals(1, lab.source.replans());
      assertEquals(0, lab.tracker.failures());
    }
  }

  @Test
  void behindAVIommuTheLogsTakeAllThatTheGuestMayMapOrSayWhyNot() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 1024)) {
      DmaDevice device = lab.devices.getFirst();
      lab.source.expectVIommu(48);
      lab.start();
      assertEquals(List.of(new Range(0, (1L << 48) - 1)), lab.source.ranges());
      long[] far = {0, 1L << 32, (1L << 48) - 8 * PAGE};
      for (int i = 0; i < far.length; i++) {
        lab.source.map(far[i], 8 * PAGE, lab.log(0), 100 * i, true);
        device.write(far[i] + i * PAGE, i);
      }
      assertEquals(set(0, 101, 202), lab.take(0));
      assertEquals(0, lab.source.replans());
      // A device whose log is too small for that, though not for what is mapped.
      lab.tracker.stop();
      device.maxSpan((1L << 48) - 1);
      lab.start();
      String refusal = lab.source.refusal().orElseThrow();
      assertTrue(refusal.contains("DMA_LOGGING_START") && refusal.contains("E2BIG"), refusal);
      assertEquals(24, lab.tracker.pagesAtStop(0));
      lab.tracker.stop();
      DeviceRanges plan = new DeviceRanges();
      plan.addVIommu(48);
      assertEquals(Optional.of(refusal), DeviceLogSource.refusal(device.vfio(), plan));
      DeviceRanges narrow = new DeviceRanges();
      narrow.addVIommu(47);
      assertEquals(Optional.empty(), DeviceLogSource.refusal(device.vfio(), narrow));
      assertEquals(0, device.logging());
    }
  }

  @Test
  void aDeviceThatRefusesCountsAsDirtyUntilItIsGone() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 64, 0, 8, true);
      lab.devices.get(1).refuseLogging(Errno.ENOMEM);
      lab.start();
      assertTrue(lab.source.refusal().orElseThrow().contains("DMA_LOGGING_START"));
      assertEquals(0, lab.devices.get(0).logging(), "nobody logs for nothing");
      lab.write(1, 3);
      assertEquals(set(), lab.take(0), "not in each round");
      assertEquals(64, lab.tracker.pagesAtStop(0));
      lab.tracker.lastSync();
      assertEquals(range(8, 72), lab.harvest(0));
      assertEquals(0, lab.tracker.failures());
      lab.source.remove(lab.devices.get(1).vfio());
      assertEquals(Optional.empty(), lab.source.refusal());
      assertEquals(range(8, 72), lab.take(0));
      lab.write(0, 3);
      assertEquals(set(11), lab.take(0));
      // The same when it comes while tracking is on.
      lab.source.add(lab.devices.get(1).vfio());
      assertTrue(lab.source.refusal().isPresent());
      assertEquals(64, lab.tracker.pagesAtStop(0));
      assertEquals(range(8, 72), lab.take(0));
      assertEquals(64, lab.unmap(0, 64));
      assertEquals(range(8, 72), lab.take(0));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 4})
  void aReportThatFailsKeepsWhatArrivedAndEverythingCountsAsDirty(int nth) {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 4096)) {
      lab.map(0, 1024, 0, 0, true);
      lab.map(1024, 100, 0, 2051, true);
      lab.start();
      for (int round = 0; round < 3; round++) {
        for (int page = 0; page < 1124; page += 3) {
          lab.write(page & 1, page);
        }
        lab.devices.get(nth & 1).failReport(nth, 40);
        BitSet all = range(0, 1024);
        all.set(2051, 2151);
        BitSet taken = lab.take(0);
        for (int i = 2; i < nth; i += 2) {
          taken = lab.take(0);
        }
        if (nth < 3) {
          assertEquals(all, taken);
        }
      }
      assertTrue(lab.tracker.failures() > 0);
      LinuxException failure = (LinuxException) lab.tracker.lastFailure();
      assertEquals(Errno.EIO, failure.errno());
      lab.take(0);
      lab.take(0);
      // Its log was started anew, and is right.
      lab.write(0, 5);
      lab.write(1, 1100);
      assertEquals(set(5, 2127), lab.take(0));
    }
  }

  @Test
  void aResetKeepsTheLogAndALogThatIsOffIsNoticed() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 1024, 0, 0, true);
      lab.start();
      lab.write(0, 1);
      lab.devices.get(0).vfio().reset();
      lab.write(0, 2);
      assertEquals(set(1, 2), lab.take(0));
      // A driver whose reset ends the log.
      lab.write(0, 3);
      lab.write(1, 4);
      lab.devices.get(0).vfio().reset();
      lab.devices.get(0).vfio().dmaLoggingStop();
      lab.write(0, 5);
      assertEquals(range(0, 1024), lab.take(0));
      assertEquals(1, lab.tracker.failures());
      lab.write(0, 6);
      lab.write(1, 7);
      assertEquals(set(6, 7), lab.take(0));
      assertEquals(1, lab.tracker.failures());
    }
  }

  @Test
  void aDeviceThatVanishesCountsAsDirtyAndTheOthersGoOn() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 1024, 0, 0, true);
      lab.start();
      lab.write(0, 1);
      lab.write(1, 2);
      lab.devices.get(0).close();
      assertEquals(range(0, 1024), lab.take(0));
      assertTrue(lab.tracker.lastFailure() instanceof ClosedException);
      assertEquals(1024, lab.tracker.pagesAtStop(0));
      lab.write(1, 3);
      assertEquals(set(), lab.take(0));
      lab.source.remove(lab.devices.get(0).vfio());
      assertEquals(0, lab.tracker.pagesAtStop(0));
      assertEquals(range(0, 1024), lab.take(0));
      lab.write(1, 3);
      assertEquals(set(3), lab.take(0));
      assertEquals(1, lab.tracker.failures());
      // In time, nothing but its last report is needed.
      DmaDevice late = lab.open(2);
      lab.source.add(late.vfio());
      assertEquals(range(0, 1024), lab.take(0));
      late.write(iova(9), 9);
      lab.source.remove(late.vfio());
      assertEquals(set(9), lab.take(0));
      assertThrows(IllegalArgumentException.class, () -> lab.source.remove(late.vfio()));
    }
  }

  @Test
  void afterAnUnmapTheLogIsReadOnceMore() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      lab.map(0, 10, 0, 5, true);
      lab.map(10, 10, 0, 100, false);
      lab.map(20, 300, 0, 203, true);
      lab.map(400, 1, 0, 600, true);
      lab.start();
      lab.write(0, 0, 20);
      lab.write(1, 9, 319, 400);
      assertEquals(321, lab.unmap(0, 500));
      assertEquals(set(5, 14, 203, 502, 600), lab.take(0));
      UnmapReport report = lab.source.unmapReport();
      assertEquals(5, report.takenPages());
      assertEquals(0, report.wholePages());
      assertEquals(0, report.windowNanos(), "there is no window");
      // Mapped again elsewhere, it is clean and tracked.
      lab.map(0, 10, 0, 700, true);
      lab.write(1, 1);
      assertEquals(set(701), lab.take(0));
      // A report that fails: all that was unmapped.
      lab.write(0, 3);
      lab.devices.get(0).failReport(1, 0);
      assertEquals(10, lab.unmap(0, 10));
      assertEquals(range(700, 710), lab.take(0));
      assertEquals(1, lab.source.unmapReport().failedQueries());
    }
  }

  @Test
  void anUnmapAcrossTheEndOfARangeTakesWhatIsOnBothSides() {
    try (LogLab lab = new LogLab(2, REPORT_WAITS, 1024)) {
      // The second range begins inside a byte of the answer.
      long edge = (1L << 20) - LogLab.BASE;
      lab.map(edge - 3, 3, 0, 100, true);
      lab.map(edge, 200, 0, 300, true);
      lab.start();
      assertEquals(2, lab.source.ranges().size());
      lab.write(0, edge - 3, edge, edge + 70);
      lab.write(1, edge - 1, edge + 199);
      assertEquals(203, lab.unmap(edge - 3, 203));
      assertEquals(set(100, 102, 300, 370, 499), lab.take(0));
      assertEquals(0, lab.source.unmapReport().failedQueries());
      // What is mapped there next is clean.
      lab.map(edge - 3, 3, 0, 500, true);
      lab.map(edge, 200, 0, 600, true);
      assertEquals(set(), lab.take(0));
    }
  }

  @Test
  void aMarkThatComesLateIsWaitedForOrEverythingIsMarked() throws InterruptedException {
    // The device promises: its report waits.
    BitSet exact = lateMark(REPORT_WAITS, true);
    assertEquals(set(505), exact);
    // It does not, and says so.
    assertEquals(range(500, 520), lateMark(null, false));
    // It does not, and somebody claims that it does: the control.
    assertEquals(set(), lateMark(REPORT_WAITS, false));
  }

  private static BitSet lateMark(Runnable settle, boolean quiesces) throws InterruptedException {
    try (LogLab lab = new LogLab(1, settle, 1024)) {
      DmaDevice device = lab.devices.getFirst();
      device.quiesce(quiesces);
      lab.map(0, 20, 0, 500, true);
      lab.start();
      device.holdMarks();
      Thread writer = new Thread(() -> lab.write(0, 5));
      writer.start();
      while (device.inFlight() == 0) {
        Thread.sleep(1);
      }
      Thread release = new Thread(device::releaseMarks);
      if (quiesces) {
        release.start();
      }
      assertEquals(20, lab.unmap(0, 20));
      BitSet taken = lab.take(0);
      if (!quiesces) {
        release.start();
      }
      release.join();
      writer.join();
      return taken;
    }
  }

  @Test
  void aHookCanBringTheMarksInBeforeTheLogIsRead() throws InterruptedException {
    DmaDevice[] device = new DmaDevice[1];
    Thread[] writer = new Thread[1];
    Runnable settle =
        () -> {
          device[0].releaseMarks();
          try {
            writer[0].join();
          } catch (InterruptedException e) {
            throw new AssertionError(e);
          }
        };
    try (LogLab lab = new LogLab(1, settle, 1024)) {
      device[0] = lab.devices.getFirst();
      device[0].quiesce(false);
      lab.map(0, 20, 0, 500, true);
      lab.start();
      device[0].holdMarks();
      writer[0] = new Thread(() -> lab.write(0, 5));
      writer[0].start();
      while (device[0].inFlight() == 0) {
        Thread.sleep(1);
      }
      assertEquals(20, lab.unmap(0, 20));
      assertEquals(set(505), lab.take(0));
    }
  }

  @Test
  void nothingIsLostUnderADeviceThatWritesAndLostMarksAreNoticed() throws InterruptedException {
    assertEquals(set(), missing(0));
    assertFalse(missing(20).isEmpty(), "a device that loses marks is not noticed");
  }

  /** Pages that differ after rounds of copying while a device writes. */
  private static BitSet missing(int drop) throws InterruptedException {
    int pages = 4096;
    try (LogLab lab = new LogLab(2, REPORT_WAITS, pages + 5)) {
      lab.map(3, pages, 0, 5, true);
      for (int i = 0; i < 2; i++) {
        DmaDevice device = lab.devices.get(i);
        device.program(iova(3), pages * PAGE, 8, SEED + i);
        device.dropEvery(drop);
      }
      lab.start();
      byte[][] copy = new byte[pages][];
      for (int page = 0; page < pages; page++) {
        copy[page] = bytes(lab, page);
      }
      for (DmaDevice device : lab.devices) {
        device.run(3000);
      }
      long taken = 0;
      for (int round = 0; round < 30; round++) {
        taken += copy(lab, copy).cardinality();
        Thread.sleep(5);
      }
      for (DmaDevice device : lab.devices) {
        device.pause();
      }
      taken += copy(lab, copy).cardinality();
      assertTrue(taken > 0);
      BitSet differ = new BitSet();
      for (int page = 0; page < pages; page++) {
        if (!java.util.Arrays.equals(copy[page], bytes(lab, page))) {
          differ.set(page);
        }
      }
      long writes = lab.devices.get(0).writes() + lab.devices.get(1).writes();
      System.out.printf(
          "DeviceLogSourceTest: %d writes while %d pages were taken, %d marks dropped: %d pages"
              + " differ, %d failures%n",
          writes,
          taken,
          lab.devices.get(0).dropped() + lab.devices.get(1).dropped(),
          differ.cardinality(),
          lab.tracker.failures());
      assertEquals(0, lab.tracker.failures());
      BitSet written = lab.written(0, 0, pages + 8);
      written.or(lab.written(1, 0, pages + 8));
      assertTrue(written.cardinality() >= shifted(differ, 3).cardinality());
      return differ;
    }
  }

  private static BitSet copy(LogLab lab, byte[][] copy) {
    BitSet taken = lab.take(0);
    taken.stream().forEach(page -> copy[page - 5] = bytes(lab, page - 5));
    return taken;
  }

  private static byte[] bytes(LogLab lab, int page) {
    return lab.memory(0)
        .asSlice((page + 5) * PAGE, PAGE)
        .toArray(java.lang.foreign.ValueLayout.JAVA_BYTE);
  }

  @Test
  void aPlanIsTriedBeforehand() {
    try (LogLab lab = new LogLab(1, REPORT_WAITS, 64)) {
      DeviceRanges plan = new DeviceRanges();
      plan.add(0, 1L << 48, true, false);
      DmaDevice device = lab.devices.getFirst();
      assertEquals(Optional.empty(), DeviceLogSource.refusal(device.vfio(), plan));
      assertEquals(0, device.logging());
      device.refuseLogging(Errno.EOPNOTSUPP);
      String refusal = DeviceLogSource.refusal(device.vfio(), plan).orElseThrow();
      assertTrue(refusal.contains("DMA_LOGGING_START"), refusal);
    }
  }
}
