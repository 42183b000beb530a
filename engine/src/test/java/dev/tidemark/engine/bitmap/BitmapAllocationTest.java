package dev.tidemark.engine.bitmap;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.sun.management.ThreadMXBean;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class BitmapAllocationTest {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final int WORDS = 4096 + 5;
  private static final long BITS = WORDS * 64L - 100;

  private static final int PAGES = WORDS * 8 >>> Pages.SHIFT;

  private final Mapping mapping = Mapping.anonymous(PAGES * Pages.SIZE);
  private final BitmapOps ops = Bitmaps.ops();
  private final RunCursor cursor = new RunCursor();
  private long sum;

  @AfterEach
  void unmap() {
    mapping.close();
  }

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
    sum += ops.zeroPages(src, 0, PAGES) + ops.zeroPages(mapping.segment(), 0, PAGES);
    sum += ops.summarize(dst, WORDS, lines);
    cursor.reset(dst, lines, BITS);
    useRuns();
    cursor.reset(dst, 0, BITS);
    useRuns();
    sum += ops.orLines(src, dst, WORDS, lines);
    ops.clearLines(dst, WORDS, lines);
    ops.clear(src, 0, BITS);
  }

  private static long allocated(Runnable calls) {
    long before = THREADS.getCurrentThreadAllocatedBytes();
    for (int j = 0; j < 50; j++) {
      calls.run();
    }
    return THREADS.getCurrentThreadAllocatedBytes() - before;
  }

  /**
   * Bytes in 50 calls of each operation that allocates: 96 a call are one vector of 512 bits that
   * was boxed once, before or after the loop; many more are vectors boxed in it.
   */
  private Map<String, Long> byOperation(MemorySegment dst, MemorySegment src, MemorySegment lines) {
    Map<String, Runnable> operations = new LinkedHashMap<>();
    operations.put("set", () -> ops.set(src, 77, 999));
    for (int shift = 0; shift < 4; shift += 3) {
      int by = shift;
      String name = by == 0 ? " aligned" : " shifted";
      operations.put("or" + name, () -> ops.or(dst, 5 + by, src, 5, BITS));
      operations.put("orCount" + name, () -> sum += ops.orCount(dst, by, src, 0, BITS));
      operations.put("andNot" + name, () -> ops.andNot(dst, by, src, 0, BITS));
      operations.put("orCountClear" + name, () -> sum += ops.orCountClear(dst, by, src, 0, BITS));
    }
    operations.put("cardinality", () -> sum += ops.cardinality(dst, 3, BITS));
    operations.put("nextSet", () -> sum += ops.nextSet(dst, 0, BITS));
    operations.put("nextClear", () -> sum += ops.nextClear(dst, 80, BITS));
    operations.put("any", () -> sum += ops.any(src, 0, BITS) ? 1 : 0);
    operations.put("zeroPages", () -> sum += ops.zeroPages(mapping.segment(), 0, PAGES));
    operations.put("zeroPages of an arena", () -> sum += ops.zeroPages(src, 0, PAGES));
    operations.put("summarize", () -> sum += ops.summarize(dst, WORDS, lines));
    operations.put(
        "runs",
        () -> {
          cursor.reset(dst, 0, BITS);
          useRuns();
        });
    operations.put("orLines", () -> sum += ops.orLines(src, dst, WORDS, lines));
    operations.put("clearLines", () -> ops.clearLines(dst, WORDS, lines));
    operations.put("clear", () -> ops.clear(src, 0, BITS));
    Map<String, Long> bytes = new LinkedHashMap<>();
    operations.forEach(
        (name, calls) -> {
          // The first run links the lambda.
          calls.run();
          ops.set(src, 77, 999);
          ops.set(dst, 77, 999);
          long found = allocated(calls);
          if (found != 0) {
            bytes.put(name, found);
          }
        });
    return bytes;
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
      long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(200);
      while (allocated != 0 && System.nanoTime() < end) {
        allocated = allocated(() -> useAll(dst, src, lines));
      }
      assertEquals(
          0,
          allocated,
          () ->
              "bytes in 50 calls of everything, %s; by operation: %s; sum %d"
                  .formatted(Bitmaps.description(), byOperation(dst, src, lines), sum));
    }
  }
}
