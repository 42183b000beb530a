package dev.tidemark.bench.hot;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.dma.DmaCursor;
import dev.tidemark.engine.source.dma.DmaMap;
import dev.tidemark.engine.source.dma.DmaRuns;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;

/**
 * The ledger of a guest's vIOMMU: single pages, adjacent in IOVA but for every hundredth, in random
 * order of guest pages.
 */
public final class DmaMapPath implements AutoCloseable {
  /** Mappings made and removed in one measurement. */
  public static final int CHANGES = 512;

  private record Mapped(long page, long count, boolean writable) {}

  private final int mappings;
  private final RamBlockLog log;
  private final DmaMap map = new DmaMap();
  private final TreeMap<Long, Mapped> tree = new TreeMap<>();
  private final DmaRuns runs = new DmaRuns();
  private final DmaCursor cursor = new DmaCursor();
  private final long[] iovas = new long[CHANGES];
  private final SplittableRandom random = new SplittableRandom(BitmapInput.SEED);

  /**
   * @param mappings how many there are all the time
   */
  @SuppressWarnings("restricted")
  public DmaMapPath(int mappings) {
    this.mappings = mappings;
    long bytes = (long) mappings * Pages.SIZE;
    // Nothing here touches guest memory.
    log =
        new RamBlockLog(new RamBlock("ram", MemorySegment.ofAddress(1L << 40).reinterpret(bytes)));
    for (int i = 0; i < mappings; i++) {
      map(iova(i));
      mapInTree(iova(i));
    }
  }

  /** A hole after each 99 pages. */
  private static long iova(long index) {
    return index + index / 99 << Pages.SHIFT;
  }

  private void map(long iova) {
    map.map(iova, Pages.SIZE, log, random.nextInt(mappings), true);
  }

  private void mapInTree(long iova) {
    Map.Entry<Long, Mapped> before = tree.floorEntry(iova);
    Map.Entry<Long, Mapped> after = tree.ceilingEntry(iova);
    if (before != null && before.getKey() + before.getValue().count() * Pages.SIZE > iova
        || after != null && after.getKey() < iova + Pages.SIZE) {
      throw new IllegalStateException("mapped already");
    }
    tree.put(iova, new Mapped(random.nextInt(mappings), 1, true));
  }

  /** Draws what is to be unmapped and mapped again, no IOVA twice. */
  public void draw() {
    int step = Math.max(1, mappings / CHANGES);
    for (int i = 0; i < CHANGES; i++) {
      iovas[i] = iova(Math.min(mappings - 1L, (long) i * step + random.nextInt(step)));
    }
    for (int i = CHANGES - 1; i > 0; i--) {
      int other = random.nextInt(i + 1);
      long iova = iovas[i];
      iovas[i] = iovas[other];
      iovas[other] = iova;
    }
  }

  /** Unmaps and maps each that was drawn. */
  public long tidemark() {
    for (long iova : iovas) {
      map.unmap(iova, Pages.SIZE);
      map(iova);
    }
    return map.mappings();
  }

  /** The same with a {@link TreeMap} that checks for overlaps, without a lock. */
  public long treeMap() {
    for (long iova : iovas) {
      tree.remove(iova);
      mapInTree(iova);
    }
    return tree.size();
  }

  /** Looks up each that was drawn. */
  public long lookUps() {
    long found = 0;
    map.lock();
    try {
      for (long iova : iovas) {
        cursor.reset(map, iova, Pages.SIZE);
        found += cursor.next() ? cursor.pages() : 0;
      }
    } finally {
      map.unlock();
    }
    return found;
  }

  /** Goes through all gap-free runs. */
  public long runs() {
    long count = 0;
    map.lock();
    try {
      runs.reset(map, DmaRuns.Kind.ALL);
      while (runs.next()) {
        count++;
      }
    } finally {
      map.unlock();
    }
    return count;
  }

  /** What the ledger costs for each mapping. */
  public double bytesPerMapping() {
    return (double) map.footprint() / map.mappings();
  }

  @Override
  public void close() {
    log.close();
  }
}
