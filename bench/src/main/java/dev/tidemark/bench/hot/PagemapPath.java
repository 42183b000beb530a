package dev.tidemark.bench.hot;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;

/** A round of a guest that is a process of 256 MiB, of which some pages were written. */
public final class PagemapPath implements AutoCloseable {
  /** Bytes of the guest. */
  public static final long BYTES = 256L << 20;

  private final Mapping memory = Mapping.anonymous(BYTES);
  private final Mapping plane = Mapping.guarded(BYTES / Pages.SIZE / 8);
  private final DirtyTracker tracker;
  private final long every;

  /**
   * @param every how manieth page is written
   */
  public PagemapPath(long every) {
    this.every = every;
    memory.segment().fill((byte) 1);
    tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));
    tracker.add(new PagemapScanSource(tracker.logs()));
    tracker.start();
    tidemark();
  }

  /** Writes the pages. */
  public void write() {
    for (long page = 0; page < BYTES / Pages.SIZE; page += every) {
      memory.segment().set(ValueLayout.JAVA_LONG, page * Pages.SIZE, page);
    }
  }

  /** Asks, merges and takes. */
  public long tidemark() {
    tracker.sync();
    long pages = tracker.harvest();
    tracker.commit();
    return pages;
  }

  /** In C: the same calls, a bit for each page, then page by page. */
  public long rival() {
    MemorySegment map = plane.segment();
    return Rivals.pagemapRound(memory.segment(), BYTES, map, map.byteSize() / Long.BYTES);
  }

  @Override
  public void close() {
    tracker.close();
    memory.close();
    plane.close();
  }
}
