package dev.tidemark.engine.bitmap;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.sun.management.ThreadMXBean;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class BitmapAllocationTest {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final int WORDS = 4096 + 5;
  private static final long BITS = WORDS * 64L - 100;

  private final BitmapOps ops = Bitmaps.ops();
  private final RunCursor cursor = new RunCursor();
  private long sum;

  private void useRuns() {
    for (int found = cursor.batch(); found > 0; found = cursor.batch()) {
      for (int run = 0; run < found; run++) {
        sum += cursor.start(run) + cursor.length(run);
      }
    }
  }

  private void useAll(MemorySegment dst, MemorySegment src, MemorySegment lines) {
    ops.set(src, 77, 999);
    ops.set(src, 99_999, 1);
    for (int shift = 0; shift < 4; shift += 3) {
      ops.or(dst, 5 + shift, src, 5, BITS);
      sum += ops.orCount(dst, shift, src, 0, BITS);
      ops.andNot(dst, shift, src, 0, BITS);
      sum += ops.orCountClear(dst, shift, src, 0, BITS);
    }
    sum += ops.cardinality(dst, 3, BITS);
    sum += ops.nextSet(dst, 0, BITS) + ops.nextClear(dst, 80, BITS);
    sum += ops.any(src, 0, BITS) ? 1 : 0;
    sum += ops.isZero(src, 0, src.byteSize()) ? 1 : 0;
    sum += ops.summarize(dst, WORDS, lines);
    cursor.reset(dst, lines, BITS);
    useRuns();
    cursor.reset(dst, 0, BITS);
    useRuns();
    sum += ops.orLines(src, dst, WORDS, lines);
    ops.clearLines(dst, WORDS, lines);
    ops.clear(src, 0, BITS);
  }

  @Test
  void nothingIsAllocatedOnceCompiled() {
    Bitmaps.warmUp();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment dst = arena.allocate(WORDS * 8L, 64);
      MemorySegment src = arena.allocate(WORDS * 8L, 64);
      MemorySegment lines = arena.allocate(WORDS / 512 * 8L + 8, 64);
      long allocated = -1;
      // How soon it is compiled is the JVM's to decide; that it then stays at 0 is ours.
      long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
      while (allocated != 0 && System.nanoTime() < end) {
        long before = THREADS.getCurrentThreadAllocatedBytes();
        for (int j = 0; j < 50; j++) {
          useAll(dst, src, lines);
        }
        allocated = THREADS.getCurrentThreadAllocatedBytes() - before;
      }
      assertEquals(0, allocated, "bytes in 50 calls of everything, sum " + sum);
    }
  }
}
