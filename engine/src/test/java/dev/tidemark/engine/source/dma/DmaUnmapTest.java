package dev.tidemark.engine.source.dma;

import static dev.tidemark.engine.source.dma.LabDma.PAGE;
import static dev.tidemark.engine.source.dma.LabDma.set;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The order of query, unmap and marks, and kernels that do half of what they were told. */
class DmaUnmapTest {
  private final Mapping memory = Mapping.anonymous(1024 * PAGE);
  private final List<String> calls = new ArrayList<>();
  private DirtyTracker tracker;
  private RamBlockLog log;
  private Fake source;

  /** A kernel that can be told to fail; it knows its mappings by their first page. */
  private final class Fake extends DmaSource {
    private final Set<Long> mapped = new HashSet<>();
    private final BitSet dirty = new BitSet();
    private final Set<Long> stuck = new HashSet<>();
    private boolean tells;
    private boolean alwaysDirty;
    private int queryFails;

    Fake(UnmapPolicy policy) {
      super(new DmaMap(), policy);
    }

    @Override
    public String name() {
      return "fake";
    }

    @Override
    public void start() {
      started = true;
    }

    @Override
    public void stop() {
      started = false;
    }

    @Override
    void ask() {}

    @Override
    void mapInKernel(long iova, long address, long bytes, boolean writable) {
      mapped.add(iova / PAGE);
    }

    @Override
    long unmapInKernel(long iova, long bytes) {
      calls.add("unmap " + iova / PAGE + "+" + bytes / PAGE);
      if (calls.stream().filter(call -> call.startsWith("unmap")).count() == 1) {
        assertNothingVisible();
      }
      long gone = 0;
      for (long page = iova / PAGE; page < (iova + bytes) / PAGE; page++) {
        if (!mapped.contains(page)) {
          continue;
        }
        if (stuck.contains(page)) {
          throw new LinuxException("unmap", Errno.EBUSY);
        }
        mapped.remove(page);
        gone += PAGE;
      }
      if (gone == 0) {
        throw new LinuxException("unmap", Errno.ENOENT);
      }
      return gone;
    }

    @Override
    boolean isAlwaysDirty() {
      return alwaysDirty;
    }

    @Override
    long mostPages() {
      return Long.MAX_VALUE;
    }

    @Override
    AskAt askAt() {
      return tells ? AskAt.WITH_UNMAP : AskAt.BEFORE_UNMAP;
    }

    @Override
    void queryForUnmap(long iova, long bytes, long bit) {
      calls.add("query " + iova / PAGE + "+" + bytes / PAGE);
      answer(iova, bytes, bit);
    }

    @Override
    long unmapAndQuery(long iova, long bytes) {
      calls.add("both " + iova / PAGE + "+" + bytes / PAGE);
      answer(iova, bytes, 0);
      return unmapInKernel(iova, bytes);
    }

    private void answer(long iova, long bytes, long bit) {
      for (int i = 0; i < bytes / PAGE; i++) {
        if (dirty.get((int) (iova / PAGE) + i)) {
          Bitmaps.scalar().set(unmapScratch.segment(), bit + i, 1);
        }
      }
      if (queryFails != 0) {
        throw new LinuxException("query", queryFails);
      }
    }
  }

  /** A page that could be harvested before the unmap has returned could be sent too early. */
  private void assertNothingVisible() {
    log.mergeMarks();
    assertEquals(0, log.dirtyPages());
  }

  private void make(UnmapPolicy policy) {
    source = new Fake(policy);
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    tracker.add(source);
    log = tracker.logs().getFirst();
    tracker.coverByMarks(log, 0, log.block().pages());
    tracker.start();
    tracker.harvest();
    tracker.commit();
  }

  @BeforeEach
  void makeOne() {
    make(UnmapPolicy.QUERY);
  }

  @AfterEach
  void free() {
    tracker.close();
    memory.close();
  }

  /** Single pages, page n of the space to page 100 + n of the block. */
  private void map(long... pages) {
    for (long page : pages) {
      source.map(page * PAGE, PAGE, log, 100 + page, true);
    }
  }

  private BitSet take() {
    tracker.sync();
    tracker.harvest();
    BitSet pages = LabDma.pagesOf(log.epoch());
    tracker.commit();
    return pages;
  }

  @Test
  void eachRunIsAskedThenUnmappedAndOnlyThenMarked() {
    map(0, 1, 2, 10, 11);
    source.dirty.set(1);
    source.dirty.set(11);
    assertEquals(3 * PAGE, source.unmap(0, 5 * PAGE));
    assertEquals(List.of("query 0+3", "unmap 0+3"), calls);
    assertEquals(set(101), take());
    assertEquals(2, source.unmapReport().openPages());
    calls.clear();
    assertEquals(2 * PAGE, source.unmap(0, 100 * PAGE));
    assertEquals(List.of("query 10+2", "unmap 10+2"), calls);
    assertEquals(set(111), take());
    assertEquals(0, source.unmap(0, 100 * PAGE));
  }

  @Test
  void withoutTrackingNothingIsAskedAndNothingMarked() {
    tracker.stop();
    map(0, 1);
    source.dirty.set(1);
    assertEquals(2 * PAGE, source.unmapAll());
    assertEquals(List.of("unmap 0+2"), calls);
    log.mergeMarks();
    assertEquals(0, log.dirtyPages());
  }

  @Test
  void readOnlyMappingsAreNeitherAskedForNorMarked() {
    source.map(0, 2 * PAGE, log, 100, false);
    source.mapped.add(1L);
    source.alwaysDirty = true;
    assertEquals(2 * PAGE, source.unmapAll());
    assertEquals(List.of("unmap 0+2"), calls);
    assertEquals(set(), take());
  }

  /** A kernel that does not know NO_CLEAR says EOPNOTSUPP or EINVAL. */
  @ParameterizedTest
  @CsvSource({
    Errno.ENOMEM + ",false",
    Errno.ENOMEM + ",true",
    Errno.EOPNOTSUPP + ",false",
    Errno.EINVAL + ",false",
    Errno.EINVAL + ",true"
  })
  void aFailedQueryStopsNoUnmapAndLeavesNothingInTheScratch(int errno, boolean tells) {
    source.tells = tells;
    map(0, 1, 2);
    source.dirty.set(1);
    source.queryFails = errno;
    assertEquals(3 * PAGE, source.unmapAll());
    assertEquals(set(100, 101, 102), take());
    assertEquals(1, source.unmapReport().failedQueries());
    assertEquals(0, source.unmapReport().openPages(), "all of them are sent");
    source.queryFails = 0;
    source.dirty.clear();
    map(0, 1, 2);
    source.unmapAll();
    assertEquals(set(), take());
  }

  @Test
  void oneCallThatTellsNeedsNoQueryBefore() {
    source.tells = true;
    map(0, 1, 2);
    source.dirty.set(2);
    source.unmapAll();
    assertEquals(List.of("both 0+3", "unmap 0+3"), calls);
    assertEquals(set(102), take());
  }

  @Test
  void aKernelThatUnmapsLessThanThereIsMakesEverythingDirty() {
    map(0, 1, 2);
    source.mapped.remove(1L);
    source.unmapAll();
    assertEquals(set(100, 101, 102), take());
    assertEquals(1, source.unmapReport().failedUnmaps());
    assertEquals(0, source.map().mappings());
    // All of it gone behind our back.
    map(5);
    source.mapped.clear();
    assertEquals(PAGE, source.unmapAll());
    assertEquals(set(105), take());
  }

  @Test
  void afterAFailureInTheMiddleTheLedgerSaysWhatIsStillMapped() {
    map(0, 1, 2, 3);
    source.stuck.add(2L);
    source.dirty.set(3);
    var e = assertThrows(LinuxException.class, () -> source.unmap(0, 4 * PAGE));
    assertEquals(Errno.EBUSY, e.errno());
    assertEquals(set(100, 101, 102, 103), take());
    assertEquals(Set.of(2L), source.mapped);
    assertEquals(1, source.map().mappings());
    source.stuck.clear();
    assertEquals(PAGE, source.unmap(0, 4 * PAGE));
    assertTrue(source.mapped.isEmpty());
  }

  @Test
  void strictMarksAllThatDevicesMayWriteAfterTheUnmap() {
    tracker.close();
    make(UnmapPolicy.STRICT);
    map(0, 1);
    source.map(2 * PAGE, PAGE, log, 500, false);
    source.unmapAll();
    assertEquals(List.of("unmap 0+3"), calls);
    assertEquals(set(100, 101), take());
    assertEquals(2, source.unmapReport().wholePages());
  }

  @Test
  void whatIsAlwaysDirtyIsMarkedOnceWhenItGoes() {
    source.alwaysDirty = true;
    map(0, 1);
    assertEquals(2, tracker.pagesAtStop(0));
    assertEquals(set(), take());
    source.unmap(0, PAGE);
    assertEquals(List.of("unmap 0+1"), calls);
    assertEquals(set(100), take());
    tracker.lastSync();
    assertEquals(1, log.dirtyPages());
  }
}
