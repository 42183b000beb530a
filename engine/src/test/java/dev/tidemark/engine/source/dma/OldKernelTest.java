package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.DeviceLogSource.REPORT_WAITS;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.ffm.iommufd.Hwpt;
import java.util.BitSet;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Direct answers where the kernel can take them, on a kernel that is said to be older than Linux
 * 6.8 (64 pages) and on one that is not (8): whatever goes another way is merged, which the log
 * counts.
 */
@Tag("lab-mock")
class OldKernelTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int BLOCK = 4096;

  static {
    System.out.println("OldKernelTest: -Dtidemark.seed=" + SEED);
  }

  @ParameterizedTest
  @ValueSource(longs = {8, 64})
  void pageTablesAreAskedDirectlyOnlyWhereTheKernelCanAnswer(long alignment) {
    var random = new SplittableRandom(SEED);
    try (LabDma lab = new LabDma(UnmapPolicy.QUERY, alignment, 0, false, BLOCK)) {
      Hwpt hwpt = lab.hwpt();
      lab.source.add(hwpt);
      lab.start();
      for (int page = 0; page <= 136; page++) {
        String at = "seed " + SEED + ", page " + page;
        int pages = 1000 + random.nextInt(500);
        lab.map(0, pages, 0, page, true);
        BitSet expected = new BitSet();
        for (int i = 0; i < 20; i++) {
          int written = i == 0 ? 0 : i == 1 ? pages - 1 : random.nextInt(pages);
          lab.write(hwpt, written);
          expected.set(page + written);
        }
        LogCounters before = lab.counters(0);
        assertEquals(expected, lab.take(0), at);
        long merged = lab.counters(0).since(before).mergedWords();
        assertEquals(page % alignment == 0, merged == 0, at);
        assertEquals(new BitSet(), lab.take(0), at);
        lab.unmap(0, pages);
        assertEquals(new BitSet(), lab.take(0), at);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {8, 64})
  void deviceLogsReportDirectlyOnlyWhereTheKernelCanAnswer(long alignment) {
    var random = new SplittableRandom(SEED);
    try (LogLab lab = new LogLab(alignment, 1, REPORT_WAITS, BLOCK)) {
      lab.source.expect(LogLab.iova(0), 1L << 30, false);
      lab.start();
      for (int page = 0; page <= 136; page++) {
        String at = "seed " + SEED + ", page " + page;
        int pages = 1000 + random.nextInt(500);
        // Begins at any place of a word in IOVA, too.
        long first = random.nextInt(100);
        lab.map(first, pages, 0, page, true);
        BitSet expected = new BitSet();
        for (int i = 0; i < 20; i++) {
          int written = i == 0 ? 0 : i == 1 ? pages - 1 : random.nextInt(pages);
          lab.write(0, first + written);
          expected.set(page + written);
        }
        LogCounters before = lab.counters(0);
        assertEquals(expected, lab.take(0), at);
        // What lies before the first page where a report may begin is merged, a word at most.
        long merged = lab.counters(0).since(before).mergedWords();
        assertEquals(page % alignment == 0 ? 0 : 1, merged, at);
        // Written again and unmapped: the answer to that has a place of its own.
        lab.write(0, first + 1, first + pages - 1);
        lab.unmap(first, pages);
        BitSet last = new BitSet();
        last.set(page + 1);
        last.set(page + pages - 1);
        assertEquals(last, lab.take(0), at);
      }
      assertEquals(0, lab.tracker.failures());
    }
  }
}
