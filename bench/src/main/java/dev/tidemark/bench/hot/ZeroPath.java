package dev.tidemark.bench.hot;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;

/** Looking for pages that hold only zeros. */
public final class ZeroPath implements AutoCloseable {
  private final BitmapOps ops = Bitmaps.ops();
  private final Mapping memory;
  private final long pages;

  /**
   * @param bytes whole pages
   * @param mixed whether every other page, by chance, has one byte somewhere that is not 0
   */
  public ZeroPath(long bytes, boolean mixed) {
    memory = Mapping.guarded(bytes);
    pages = bytes / Pages.SIZE;
    SplittableRandom random = new SplittableRandom(BitmapInput.SEED);
    for (long page = 0; mixed && page < pages; page++) {
      if (random.nextBoolean()) {
        long at = page * Pages.SIZE + random.nextLong(Pages.SIZE);
        memory.segment().set(ValueLayout.JAVA_BYTE, at, (byte) 1);
      }
    }
  }

  /** Counts them with vectors. */
  public long tidemark() {
    long zeros = 0;
    for (long page = 0; page < pages; page += 64) {
      int some = (int) Math.min(64, pages - page);
      zeros += Long.bitCount(ops.zeroPages(memory.segment(), page * Pages.SIZE, some));
    }
    return zeros;
  }

  /** The same in C. */
  public long rival() {
    return Rivals.zeroPages(memory.segment(), pages);
  }

  /** What memory allows: reading all of it. */
  public long limitRead() {
    return pages - Rivals.limitRead(memory.segment(), pages * Pages.SIZE);
  }

  @Override
  public void close() {
    memory.close();
  }
}
