package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.BASE;
import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.lab.LabMemory;
import dev.tidemark.ffm.lab.MockIommu;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.BitSet;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The bits of real page tables, in the lab. */
@Tag("lab-mock")
class HwptSourceTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());

  static {
    System.out.println("HwptSourceTest: -Dtidemark.seed=" + SEED);
  }

  @Test
  void alignedMappingsNeedOneCallAndNoPassInUserSpace() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 4096)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      // Three mappings without a hole, contiguous in the block, from its page 72 on.
      lab.map(0, 1000, 0, 72, true);
      lab.map(1000, 1, 0, 1072, false);
      lab.map(1001, 999, 0, 1073, true);
      lab.start();
      LogCounters before = lab.counters(0);
      assertEquals(set(), lab.take(0));
      for (int at : new int[] {0, 1, 63, 64, 999, 1001, 1999}) {
        assertTrue(lab.write(hwpt, at));
      }
      assertEquals(set(72, 73, 135, 136, 1071, 1073, 2071), lab.take(0));
      assertEquals(set(), lab.take(0));
      LogCounters used = lab.counters(0).since(before);
      assertEquals(3, used.queries());
      assertEquals(0, used.mergedWords());
      assertEquals(0, used.mergePasses());
    }
  }

  @Test
  void mappingsThatDoNotFallOnThePlanesBytesGoThroughTheScratchPlaneInOnePass() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 4096)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      lab.map(0, 2048, 0, 3, true);
      lab.start();
      LogCounters before = lab.counters(0);
      assertTrue(lab.write(hwpt, 0));
      assertTrue(lab.write(hwpt, 700));
      assertTrue(lab.write(hwpt, 2047));
      assertEquals(set(3, 703, 2050), lab.take(0));
      assertEquals(set(), lab.take(0));
      LogCounters used = lab.counters(0).since(before);
      assertEquals(2, used.queries());
      assertEquals(2 * 2048 / 64, used.mergedWords());
    }
  }

  @Test
  void everyAlignmentAndLengthLandsExactly() {
    var random = new SplittableRandom(SEED);
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 2000)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      lab.start();
      for (int trial = 0; trial < 150; trial++) {
        String at = "seed " + SEED + ", trial " + trial;
        int pages = 1 + random.nextInt(trial % 3 == 0 ? 700 : 140);
        int page = random.nextInt(2000 - pages);
        long iova = random.nextInt(100_000);
        lab.map(iova, pages, 0, page, true);
        BitSet expected = new BitSet();
        for (int i = 0; i < 1 + random.nextInt(10); i++) {
          int written = random.nextInt(10) == 0 ? pages - 1 : random.nextInt(pages);
          lab.write(hwpt, iova + written);
          expected.set(page + written);
        }
        assertEquals(expected, lab.take(0), at);
        assertEquals(set(), lab.take(0), at);
        assertEquals(pages, lab.unmap(iova, pages), at);
        assertEquals(set(), lab.take(0), at);
      }
    }
  }

  @Test
  void aRunAcrossBlocksKeepsItsLongPiecesDirect() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 4096, 64)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      // As a PC: low memory, a ROM, memory; no hole.
      lab.map(0, 160, 0, 0, true);
      lab.map(160, 96, 0, 160, true);
      lab.map(256, 64, 1, 0, false);
      lab.map(320, 2048, 0, 320, true);
      lab.start();
      LogCounters before = lab.counters(0);
      lab.write(hwpt, 5);
      lab.write(hwpt, 255);
      lab.write(hwpt, 320);
      lab.write(hwpt, 2367);
      assertEquals(set(5, 255, 320, 2367), lab.take(0));
      LogCounters used = lab.counters(0).since(before);
      assertEquals(2, used.queries());
      assertTrue(used.mergedWords() <= 320 / 64, "only the short pieces: " + used);
    }
  }

  @Test
  void allPageTablesAreAskedAndAddUp() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt one = lab.hwpt();
      Hwpt two = lab.hwpt();
      lab.source.add(one);
      lab.source.add(two);
      lab.map(0, 64, 0, 0, true);
      // The same pages once more, where they need the scratch plane.
      lab.map(100, 3, 0, 1, true);
      lab.map(103, 64, 0, 501, true);
      lab.start();
      lab.write(one, 0);
      lab.write(two, 1);
      lab.write(one, 2);
      lab.write(two, 2);
      lab.write(one, 102);
      lab.write(two, 103);
      assertEquals(set(0, 1, 2, 3, 501), lab.take(0));
      assertEquals(set(), lab.take(0));
    }
  }

  @Test
  void mappingsAfterAHoleAreFoundToo() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      for (int i = 0; i < 10; i++) {
        lab.map(20 * i, 10, 0, 16 * i, true);
      }
      lab.start();
      BitSet expected = new BitSet();
      for (int i = 0; i < 10; i++) {
        lab.write(hwpt, 20 * i + i);
        expected.set(16 * i + i);
      }
      LogCounters before = lab.counters(0);
      assertEquals(expected, lab.take(0));
      assertEquals(10, lab.counters(0).since(before).queries());
    }
  }

  @Test
  void entriesLargerThanAPageSetNoBitOfAnotherMapping() {
    long huge = MockIommu.HUGE_PAGE_SIZE / PAGE;
    try (LabDma lab =
        new LabDma(UnmapPolicy.QUERY, MockIommu.MOCK_FLAGS_DEVICE_HUGE_IOVA, true, 8 * huge)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      // One large entry between pages of the block that are not mapped.
      lab.map(0, huge, 0, 2 * huge, true);
      // The next mapping of the run shows another part of the block.
      lab.map(huge, huge, 0, 6 * huge, true);
      lab.start();
      lab.write(hwpt, 7);
      BitSet expected = new BitSet();
      expected.set((int) (2 * huge), (int) (3 * huge));
      assertEquals(expected, lab.take(0), "the whole entry, and nothing else");
      lab.write(hwpt, 2 * huge - 1);
      expected.clear();
      expected.set((int) (6 * huge), (int) (7 * huge));
      assertEquals(expected, lab.take(0));
    }
  }

  @Test
  void unmappingAsksEveryPageTableFirst() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt one = lab.hwpt();
      Hwpt two = lab.hwpt();
      lab.source.add(one);
      lab.source.add(two);
      lab.map(0, 10, 0, 5, true);
      lab.map(10, 10, 0, 100, false);
      lab.map(20, 300, 0, 203, true);
      lab.map(400, 1, 0, 600, true);
      // A run that begins with pages that are not asked for.
      lab.map(450, 3, 0, 900, false);
      lab.map(453, 3, 0, 903, true);
      lab.start();
      lab.write(two, 454);
      lab.write(one, 0);
      lab.write(two, 9);
      lab.write(one, 20);
      lab.write(two, 319);
      lab.write(two, 400);
      assertEquals(327, lab.unmap(0, 500));
      assertEquals(0, lab.map.mappings());
      assertEquals(set(5, 14, 203, 502, 600, 904), lab.take(0));
      UnmapReport report = lab.source.unmapReport();
      assertEquals(3, report.unmaps());
      assertEquals(3, report.queried());
      assertEquals(6, report.takenPages());
      assertEquals(0, report.wholePages());
      assertEquals(308, report.openPages());
      assertTrue(report.windowNanos() >= report.longestWindowNanos());
      assertTrue(report.longestWindowNanos() > 0);
      // Mapped again elsewhere, it is tracked from its first moment.
      lab.map(30, 10, 0, 5, true);
      lab.write(two, 31);
      assertEquals(set(6), lab.take(0));
    }
  }

  @Test
  void theStrictPolicyCountsAllThatDevicesMayHaveWritten() {
    try (LabDma lab = new LabDma(UnmapPolicy.STRICT, 1024)) {
      lab.source.add(lab.hwpt());
      lab.map(0, 4, 0, 5, true);
      lab.map(4, 4, 0, 20, false);
      lab.start();
      assertEquals(8, lab.unmap(0, 8));
      assertEquals(set(5, 6, 7, 8), lab.take(0));
      assertEquals(4, lab.source.unmapReport().wholePages());
      assertEquals(0, lab.source.unmapReport().queried());
      assertEquals(0, lab.source.unmapReport().openPages(), "there is no window");
    }
  }

  @Test
  void aFailedQueryStopsNoUnmapAndEverythingCountsAsDirty() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      lab.source.add(lab.hwpt());
      Hwpt gone = lab.hwpt();
      lab.source.add(gone);
      lab.map(0, 4, 0, 5, true);
      lab.start();
      gone.close();
      assertEquals(4, lab.unmap(0, 4));
      assertEquals(set(5, 6, 7, 8), lab.take(0));
      assertEquals(1, lab.source.unmapReport().failedQueries());
      // Also a sync that cannot ask one page table counts everything, each time.
      lab.map(0, 4, 0, 50, true);
      assertEquals(set(50, 51, 52, 53), lab.take(0));
      assertTrue(lab.tracker.lastFailure() instanceof ClosedException);
      assertThrows(ClosedException.class, lab.tracker::stop);
    }
  }

  @Test
  void aPageTableThatJoinsMakesEverythingDirtyOnceAndIsTrackedThen() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt one = lab.hwpt();
      lab.source.add(one);
      lab.map(0, 4, 0, 8, true);
      lab.map(4, 2, 0, 20, false);
      lab.start();
      Hwpt two = lab.hwpt();
      lab.source.add(two);
      assertEquals(set(8, 9, 10, 11), lab.take(0));
      lab.write(two, 3);
      assertEquals(set(11), lab.take(0));
    }
  }

  @Test
  void aPageTableThatLeavesIsAskedOnceMore() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt one = lab.hwpt();
      Hwpt two = lab.hwpt();
      lab.source.add(one);
      lab.source.add(two);
      lab.map(0, 4, 0, 8, true);
      lab.start();
      lab.write(two, 3);
      lab.write(one, 1);
      lab.source.remove(two);
      two.close();
      assertEquals(set(9, 11), lab.take(0));
      assertThrows(IllegalArgumentException.class, () -> lab.source.remove(two));
      // One that is closed already cannot be asked: all it may have written counts.
      Hwpt three = lab.hwpt();
      lab.source.add(three);
      lab.take(0);
      three.close();
      lab.source.remove(three);
      assertEquals(set(8, 9, 10, 11), lab.take(0));
      assertEquals(set(), lab.take(0));
    }
  }

  @Test
  void onePageTableThatCannotTrackMakesEverythingDirtyAtTheLastSyncOnly() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      lab.map(0, 4, 0, 8, true);
      lab.start();
      assertEquals(0, lab.tracker.pagesAtStop(0));
      lab.source.addUntracked("mdev");
      assertEquals(List.of("mdev"), lab.source.untracked());
      assertEquals(set(8, 9, 10, 11), lab.take(0));
      assertEquals(set(), lab.take(0), "not in every round");
      assertEquals(4, lab.tracker.pagesAtStop(0));
      lab.map(4, 1, 0, 100, true);
      lab.map(5, 1, 0, 200, true);
      lab.map(6, 1, 0, 300, false);
      assertEquals(6, lab.tracker.pagesAtStop(0));
      assertEquals(1024, lab.tracker.pagesAtStop(1022));
      assertEquals(1, lab.unmap(5, 1));
      assertEquals(set(200), lab.take(0));
      lab.tracker.lastSync();
      lab.tracker.harvest();
      assertEquals(set(8, 9, 10, 11, 100), LabDma.pagesOf(lab.log(0).epoch()));
      lab.tracker.commit();
      // It goes; tracking is on again.
      lab.source.removeUntracked("mdev");
      assertEquals(set(8, 9, 10, 11, 100), lab.take(0));
      lab.write(hwpt, 4);
      assertEquals(set(100), lab.take(0));
    }
  }

  /** As the CPUs' writes may be tracked by what the process writes, which DMA is not. */
  @Test
  void whatTheProcessesOwnTrackingDoesNotSeeOfAnUntrackedDeviceIsInTheLastSync() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024);
        Arena arena = Arena.ofConfined()) {
      lab.tracker.add(new PagemapScanSource(lab.tracker.logs()));
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      lab.map(0, 4, 0, 8, true);
      lab.start();
      MemorySegment data = arena.allocateFrom(ValueLayout.JAVA_LONG, 1, 2);
      try (MockIommu.Access hardware = lab.mock.access(lab.ioas)) {
        MemorySegment ram = lab.log(0).block().memory();
        ram.set(ValueLayout.JAVA_LONG, 500 * PAGE, 1);
        assertEquals(set(500), lab.take(0));
        hardware.writePinned((BASE + 2) * PAGE - 8, data);
        assertEquals(2, ram.get(ValueLayout.JAVA_LONG, 10 * PAGE));
        assertEquals(set(), lab.take(0), "without its page table's bits, which are the mock's own");
        lab.write(hwpt, 1);
        lab.write(hwpt, 2);
        assertEquals(set(9, 10), lab.take(0));
        lab.source.addUntracked("no bits at all");
        assertEquals(set(8, 9, 10, 11), lab.take(0));
        hardware.writePinned((BASE + 2) * PAGE - 8, data);
        assertEquals(set(), lab.take(0));
        lab.tracker.lastSync();
        lab.tracker.harvest();
        assertEquals(set(8, 9, 10, 11), LabDma.pagesOf(lab.log(0).epoch()));
        lab.tracker.commit();
      }
    }
  }

  @Test
  void aPageTableMadeWithoutTrackingCannotBeStartedAndLeavesNoneOn() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      Hwpt good = lab.hwpt();
      lab.source.add(good);
      lab.source.add(lab.iommufd.borrowHwpt(lab.device.hwptId()));
      lab.map(0, 4, 0, 8, true);
      assertThrows(LinuxException.class, lab.tracker::start);
      assertThrows(LinuxException.class, () -> lab.write(good, 1), "tracking must be off again");
    }
  }

  @Test
  void aPageTableMadeWithoutTrackingThatJoinsMakesEverythingDirty() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      lab.source.add(lab.hwpt());
      lab.map(0, 4, 0, 8, true);
      lab.start();
      lab.source.add(lab.iommufd.borrowHwpt(lab.device.hwptId()));
      assertEquals(1, lab.source.untracked().size());
      assertEquals(set(8, 9, 10, 11), lab.take(0));
      lab.tracker.lastSync();
      assertEquals(4, lab.log(0).dirtyPages());
    }
  }

  @Test
  void aRefusedMappingLeavesNoTraceInTheLedger() {
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, 1024)) {
      lab.source.add(lab.hwpt());
      // Below the aperture.
      assertThrows(LinuxException.class, () -> lab.source.map(0, PAGE, lab.log(0), 0, true));
      assertEquals(0, lab.map.mappings());
      lab.map(0, 4, 0, 8, true);
      assertThrows(IllegalStateException.class, () -> lab.map(3, 1, 0, 8, true));
      assertThrows(IllegalStateException.class, () -> lab.unmap(0, 2));
      assertEquals(1, lab.map.mappings());
      assertEquals(4, lab.source.unmapAll() / PAGE);
      assertEquals(0, lab.source.unmapAll());
    }
  }

  @Test
  void aHundredThousandPagesInAnyOrderNeedOneCallPerRun() {
    int n = 100_000;
    int[] order = new int[n];
    var random = new SplittableRandom(SEED);
    for (int i = 0; i < n; i++) {
      int j = random.nextInt(i + 1);
      order[i] = order[j];
      order[j] = i;
    }
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, n);
        LabMemory bits = LabMemory.shared(2 * n / 8 + 8)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      // A hole after each 9,973 pages; read-only ones do not part a run.
      long runs = 0;
      long at = 0;
      long[] where = new long[n];
      long begin = System.nanoTime();
      for (int i = 0; i < n; i++) {
        if (i % 9_973 == 0) {
          at++;
          runs++;
        }
        where[i] = at;
        lab.map(at++, 1, 0, order[i], i % 10 != 9);
      }
      long mapped = System.nanoTime();
      lab.start();
      BitSet expected = new BitSet();
      for (int i = 0; i < n; i++) {
        if (i % 10 != 9 && random.nextInt(3) == 0) {
          expected.set(order[i]);
          long slot = 2 * where[i] + random.nextInt(2);
          MemorySegment segment = bits.segment();
          byte old = segment.get(ValueLayout.JAVA_BYTE, slot / 8);
          segment.set(ValueLayout.JAVA_BYTE, slot / 8, (byte) (old | 1 << (slot & 7)));
        }
      }
      assertEquals(
          expected.cardinality(), lab.mock.dirty(hwpt, BASE * PAGE, at * PAGE, bits.segment()));
      LogCounters before = lab.counters(0);
      long asked = System.nanoTime();
      lab.tracker.sync();
      long answered = System.nanoTime();
      LogCounters used = lab.counters(0).since(before);
      lab.tracker.harvest();
      assertEquals(expected, LabDma.pagesOf(lab.log(0).epoch()), "seed " + SEED);
      lab.tracker.commit();
      assertEquals(runs, used.queries());
      assertEquals(set(), lab.take(0));
      // What one call per mapping costs, which is what QEMU does.
      long single = System.nanoTime();
      for (int i = 0; i < n; i++) {
        if (i % 10 != 9) {
          hwpt.getDirtyBitmap((BASE + where[i]) * PAGE, PAGE, PAGE, 0, bits.segment());
        }
      }
      long done = System.nanoTime();
      System.out.printf(
          "HwptSourceTest: %d mappings made in %d ms; %d dirty; sync: %d calls, %d ms; one call per"
              + " writable mapping: %d calls, %d ms%n",
          n,
          (mapped - begin) / 1_000_000,
          expected.cardinality(),
          used.queries(),
          (answered - asked) / 1_000_000,
          n - n / 10,
          (done - single) / 1_000_000);
      assertFalse(lab.tracker.failures() > 0);
    }
  }
}
