package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.iommufd.Hwpt;
import dev.tidemark.ffm.iommufd.Ioas;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.iommufd.IommufdUapi;
import dev.tidemark.ffm.lab.DmaDevice;
import dev.tidemark.ffm.lab.MockIommu;
import dev.tidemark.ffm.vfio.VfioContainer;
import dev.tidemark.ffm.vfio.VfioGroup;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestReporter;

/**
 * A device that goes on writing while its memory is unmapped, for each way to learn what it wrote;
 * in the lab. Once the unmap has returned the memory is as it stays: a page that differs from what
 * it was before it was mapped was written, and must be dirty.
 *
 * <p>A provoked race: the device writes one page more right before the kernel unmaps, after the
 * query where there is one before it, and tries the next right after. Else it writes from a thread
 * of its own all the time.
 */
@Tag("lab-mock")
class UnmapWindowTest {
  private static final int RACES = Integer.getInteger("tidemark.window.races", 10_000);

  /** As many that are not provoked: what happens by itself. */
  private static final int FREE_RACES = RACES / 10;

  /** What is unmapped at a time. */
  private static final int PAGES = 24;

  /** How many of them are written before a provoked race. */
  private static final int WRITTEN = 2;

  /** How many races between two syncs, each with memory of its own. */
  private static final int BATCH = 50;

  private static final long IOVA = MockIommu.MOCK_APERTURE_START;
  private static final long PATIENCE = TimeUnit.SECONDS.toNanos(200);

  private final Iommufd iommufd = Iommufd.open();
  private final Mapping memory = Mapping.anonymous(BATCH * PAGES * PAGE);
  private final DirtyTracker tracker =
      new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
  private final RamBlockLog log = tracker.logs().getFirst();
  private final List<AutoCloseable> resources = new ArrayList<>();

  UnmapWindowTest() {
    tracker.coverByMarks(log, 0, log.block().pages());
  }

  @AfterEach
  void close() throws Exception {
    tracker.close();
    for (AutoCloseable resource : resources.reversed()) {
      resource.close();
    }
    iommufd.close();
    memory.close();
  }

  private <T extends AutoCloseable> T keep(T resource) {
    resources.add(resource);
    return resource;
  }

  /** How a device writes 8 bytes. */
  private interface Dma {
    /**
     * @return false if nothing is mapped there any more
     */
    boolean write(long iova, MemorySegment value);
  }

  /** A device that fills what is mapped from the first page to the last, over and over. */
  private static final class Writer implements AutoCloseable {
    private final Dma dma;
    private final Thread thread;
    private volatile long mappings;
    private volatile long begun;
    private volatile long done;
    private volatile boolean over;

    Writer(Dma dma) {
      this.dma = dma;
      thread = Thread.ofPlatform().name("device").start(this::write);
    }

    private void write() {
      long seen = 0;
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment value = arena.allocate(8);
        while (!over) {
          if (mappings == seen) {
            // No onSpinWait: under emulation its instruction takes a lock of all processors.
            continue;
          }
          seen = mappings;
          boolean mapped = true;
          for (long i = 0; mapped && !over; i++) {
            long number = begun + 1;
            begun = number;
            value.set(JAVA_LONG, 0, number);
            mapped = dma.write(IOVA + i % PAGES * PAGE, value);
            done = mapped ? number : done;
          }
        }
      }
    }

    /** Says that something is mapped. */
    void mapped() {
      mappings++;
    }

    /** Waits until it has begun a write from now on, and ended it. */
    void awaitOneMore() {
      long before = begun;
      long start = System.nanoTime();
      while (done <= before) {
        if (!thread.isAlive() || System.nanoTime() - start > PATIENCE) {
          throw new IllegalStateException("the device does not write any more");
        }
      }
    }

    @Override
    public void close() {
      over = true;
      try {
        thread.join();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
    }
  }

  /** A device of the lab: its log is marked after the data. */
  private static Dma of(DmaDevice device) {
    return (iova, value) -> {
      try {
        device.write(iova, value);
        return true;
      } catch (LinuxException e) {
        return false;
      }
    };
  }

  /** Counts of what came out. */
  private final class Races {
    private final String name;
    private DmaSource source;
    private final boolean provoked;
    private final MemorySegment value = Arena.ofAuto().allocate(8);
    private Dma dma;
    private long values;
    private long deviceNanos;
    private long nanos;
    private long totalNanos;
    private long races;
    private long missed;
    private long racesWithMisses;
    private long extra;

    Races(String name, boolean provoked) {
      this.name = name;
      this.provoked = provoked;
    }

    private boolean write(int page) {
      value.set(JAVA_LONG, 0, ++values);
      return dma.write(IOVA + page * PAGE, value);
    }

    /** An address space that lets the device write on when it unmaps. */
    DmaSpace racing(DmaSpace space) {
      return new DmaSpace() {
        @Override
        public void map(long iova, long address, long bytes, boolean writable) {
          space.map(iova, address, bytes, writable);
        }

        @Override
        public long unmap(long iova, long bytes) {
          if (!provoked) {
            return space.unmap(iova, bytes);
          }
          long start = System.nanoTime();
          assertTrue(write(WRITTEN));
          deviceNanos += System.nanoTime() - start;
          long gone = space.unmap(iova, bytes);
          start = System.nanoTime();
          assertFalse(write(WRITTEN + 1), "it is not mapped any more");
          deviceNanos += System.nanoTime() - start;
          return gone;
        }
      };
    }

    void run(DmaSource source, Dma dma, int count) {
      this.source = source;
      this.dma = dma;
      if (provoked) {
        run(
            count,
            () -> {
              for (int page = 0; page < WRITTEN; page++) {
                assertTrue(write(page));
              }
            });
      } else {
        try (Writer device = new Writer(dma)) {
          run(
              count,
              () -> {
                device.mapped();
                device.awaitOneMore();
              });
        }
      }
      assertEquals(0, tracker.failures(), () -> "" + tracker.lastFailure());
      assertEquals(0, source.unmapReport().failedQueries());
      assertEquals(0, source.unmapReport().failedUnmaps());
    }

    private void run(int count, Runnable beginWriting) {
      long begin = System.nanoTime();
      tracker.start();
      tracker.harvest();
      tracker.commit();
      long[] before = new long[BATCH * PAGES];
      while (races < count) {
        for (int page = 0; page < before.length; page++) {
          before[page] = memory.segment().get(JAVA_LONG, page * PAGE);
        }
        for (int i = 0; i < BATCH; i++) {
          source.map(IOVA, PAGES * PAGE, log, i * PAGES, true);
          beginWriting.run();
          long start = System.nanoTime();
          source.unmap(IOVA, PAGES * PAGE);
          nanos += System.nanoTime() - start;
        }
        tracker.sync();
        tracker.harvest();
        count(before, LabDma.pagesOf(log.epoch()));
        tracker.commit();
        races += BATCH;
      }
      totalNanos = System.nanoTime() - begin;
    }

    private void count(long[] before, BitSet taken) {
      for (int race = 0; race < BATCH; race++) {
        long lost = 0;
        for (int page = race * PAGES; page < (race + 1) * PAGES; page++) {
          boolean written = memory.segment().get(JAVA_LONG, page * PAGE) != before[page];
          lost += written && !taken.get(page) ? 1 : 0;
          extra += !written && taken.get(page) ? 1 : 0;
        }
        missed += lost;
        racesWithMisses += lost > 0 ? 1 : 0;
      }
    }

    void print(TestReporter reporter) {
      UnmapReport report = source.unmapReport();
      String window =
          report.queried() == 0
              ? "no window"
              : "window %.1f us mean, %.1f longest"
                  .formatted(
                      report.windowNanos() / 1e3 / report.queried(),
                      report.longestWindowNanos() / 1e3);
      String row =
          "%s | %d | %d missed in %d races | extra %d | open pages %d | %s | %.1f us an unmap | %.1f s"
              .formatted(
                  name,
                  races,
                  missed,
                  racesWithMisses,
                  extra,
                  report.openPages(),
                  window,
                  (nanos - deviceNanos) / 1e3 / races,
                  totalNanos / 1e9);
      System.out.println("UnmapWindowTest: " + row);
      reporter.publishEntry("unmap window", row);
    }
  }

  private static boolean write(MockIommu.Access access, long iova, MemorySegment value) {
    try {
      access.write(iova, value);
      return true;
    } catch (LinuxException e) {
      return false;
    }
  }

  private Races pageTable(String name, UnmapPolicy policy, boolean provoked, int count) {
    Races races = new Races(name, provoked);
    Ioas ioas = iommufd.allocIoas();
    MockIommu mock = new MockIommu(iommufd);
    MockIommu.Device device = mock.addDevice(ioas, 0);
    Hwpt hwpt =
        keep(
            iommufd.allocHwpt(
                device.deviceId(), ioas, IommufdUapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
    MockIommu.Access access = keep(mock.access(ioas));
    HwptSource source = new HwptSource(races.racing(DmaSpace.of(ioas)), new DmaMap(), policy);
    source.add(hwpt);
    tracker.add(source);
    // As the hardware does: the table's bit is set by the time that the data is there.
    races.run(source, (iova, value) -> mock.dirty(hwpt, iova) && write(access, iova, value), count);
    return races;
  }

  @Test
  void askedBeforeTheUnmapAPageTableMissesWhatIsWrittenInBetween(TestReporter reporter) {
    Races races = pageTable("page table, asked before", UnmapPolicy.QUERY, true, RACES);
    races.print(reporter);
    assertEquals(races.races, races.missed, "the control: this test sees what is missed");
    assertEquals(races.races, races.racesWithMisses);
    assertEquals(races.races * (PAGES - WRITTEN), races.source.unmapReport().openPages());
  }

  @Test
  void howOftenThatHappensByItself(TestReporter reporter) {
    Races races =
        pageTable("page table, asked before, by itself", UnmapPolicy.QUERY, false, FREE_RACES);
    races.print(reporter);
    assertTrue(races.source.unmapReport().openPages() >= races.missed);
  }

  @Test
  void allCountedAsDirtyAfterTheUnmapNothingIsMissed(TestReporter reporter) {
    Races races = pageTable("page table, strict", UnmapPolicy.STRICT, true, RACES);
    races.print(reporter);
    assertEquals(0, races.missed);
    assertEquals(races.races * PAGES, races.source.unmapReport().wholePages());
  }

  @Test
  void norIsItByItself(TestReporter reporter) {
    Races races = pageTable("page table, strict, by itself", UnmapPolicy.STRICT, false, FREE_RACES);
    races.print(reporter);
    assertEquals(0, races.missed);
  }

  private Races deviceLog(String name, boolean provoked, int count) {
    Races races = new Races(name, provoked);
    Ioas ioas = iommufd.allocIoas();
    DmaDevice device = keep(DmaDevice.open(DmaDevice.PLAIN, iommufd));
    device.vfio().attach(ioas);
    DeviceLogSource source =
        new DeviceLogSource(
            races.racing(DmaSpace.of(ioas)), new DmaMap(), DeviceLogSource.REPORT_WAITS);
    source.expect(IOVA, PAGES * PAGE, false);
    source.add(device.vfio());
    tracker.add(source);
    races.run(source, of(device), count);
    return races;
  }

  @Test
  void aLogThatIsReadAfterTheUnmapMissesNothing(TestReporter reporter) {
    Races races = deviceLog("device log, read after", true, RACES);
    races.print(reporter);
    assertEquals(0, races.missed);
  }

  @Test
  void norDoesItByItself(TestReporter reporter) {
    Races races = deviceLog("device log, read after, by itself", false, FREE_RACES);
    races.print(reporter);
    assertEquals(0, races.missed);
  }

  @Test
  void oneCallThatUnmapsAndTellsMissesNothing(TestReporter reporter) {
    // Nothing comes in between.
    Races races = new Races("type1, one call, by itself", false);
    VfioContainer container = keep(VfioContainer.open());
    VfioGroup group = keep(VfioGroup.open(DmaDevice.names(DmaDevice.PLAIN).group()));
    group.setContainer(container);
    container.setIommu(VfioUapi.VFIO_TYPE1v2_IOMMU);
    DmaDevice device = keep(DmaDevice.open(DmaDevice.PLAIN, group));
    Type1Source source = new Type1Source(container, new DmaMap());
    tracker.add(source);
    races.run(source, of(device), RACES);
    races.print(reporter);
    assertEquals(0, races.missed);
  }
}
