package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.DeviceLogSource.REPORT_WAITS;
import static dev.tidemark.engine.source.dma.LogLab.PAGE;
import static dev.tidemark.engine.source.dma.LogLab.iova;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.lab.DmaDevice;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestReporter;

/**
 * What a report of 1 GiB costs, by the share of it that is dirty; in the lab, so under emulation.
 */
@Tag("lab-mock")
class ReportCostTest {
  private static final int PAGES = 1 << 18;
  private static final long[] PERCENT = {0, 1, 10, 50, 100};
  private static final int ROUNDS = 3;

  @Test
  void aGibIsReportedWithoutAPassInUserSpace(TestReporter reporter) {
    StringBuilder table = new StringBuilder("dirty % | pages | report ms | sync ms\n");
    try (LogLab lab = new LogLab(1, REPORT_WAITS, PAGES);
        Mapping bitmap = Mapping.guarded(PAGES / 8);
        Arena arena = Arena.ofConfined()) {
      DmaDevice device = lab.devices.getFirst();
      lab.map(0, PAGES, 0, 0, true);
      lab.start();
      LogCounters before = lab.counters(0);
      MemorySegment eight = arena.allocate(8);
      long queries = 0;
      for (long percent : PERCENT) {
        long report = Long.MAX_VALUE;
        long sync = Long.MAX_VALUE;
        long dirty = 0;
        for (int round = 0; round < (percent > 10 ? 1 : ROUNDS); round++) {
          dirty = write(device, eight, percent);
          long start = System.nanoTime();
          device.vfio().dmaLoggingReport(iova(0), PAGES * PAGE, PAGE, bitmap.segment());
          report = Math.min(report, System.nanoTime() - start);
          assertEquals(dirty, write(device, eight, percent));
          start = System.nanoTime();
          lab.tracker.sync();
          sync = Math.min(sync, System.nanoTime() - start);
          queries++;
          assertEquals(dirty, lab.tracker.harvest());
          lab.tracker.commit();
        }
        table.append("%d | %d | %.3f | %.3f%n".formatted(percent, dirty, report / 1e6, sync / 1e6));
      }
      LogCounters used = lab.counters(0).since(before);
      assertEquals(queries, used.queries());
      assertEquals(0, used.mergedWords());
      assertEquals(0, used.mergePasses());
      assertEquals(0, lab.tracker.failures());
    }
    reporter.publishEntry("REPORT of 1 GiB", table.toString());
    System.out.println("ReportCostTest: " + table.toString().replace("\n", "; "));
  }

  /** Every so many-th page, by 8 bytes each. */
  private static long write(DmaDevice device, MemorySegment eight, long percent) {
    long dirty = 0;
    for (long page = 0; percent > 0 && page < PAGES; page += 100 / percent) {
      device.write(iova(page), eight);
      dirty++;
    }
    return dirty;
  }
}
