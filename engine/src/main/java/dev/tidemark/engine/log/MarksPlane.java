package dev.tidemark.engine.log;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;

/**
 * The plane that anybody may write at any time, by atomic OR: the VMM, vCPU threads, unmaps. One
 * summary bit per 64 words says where to look, so that taking the marks costs nothing where there
 * are none.
 *
 * <p>A mark sets its word first and its summary bit second; taking reads them in the same order as
 * they are needed, summary first. So a mark that had returned before the taking began is always
 * found; one that is made meanwhile is found now or next time.
 */
final class MarksPlane implements AutoCloseable {
  private static final VarHandle WORD = JAVA_LONG.varHandle().withInvokeExactBehavior();
  private static final int WORDS_PER_SUMMARY_BIT = 64;

  // An arena, unlike a mapping, turns a mark that comes after close into an exception.
  private final Arena arena = Arena.ofShared();
  private final MemorySegment map;
  private final MemorySegment top;
  private final long summaryWords;

  MarksPlane(long planeBytes) {
    long summaryBits = (planeBytes / 8 + WORDS_PER_SUMMARY_BIT - 1) / WORDS_PER_SUMMARY_BIT;
    summaryWords = (summaryBits + 63) / 64;
    try {
      map = arena.allocate(planeBytes, 64);
      top = arena.allocate(summaryWords * 8, 64);
    } catch (Throwable e) {
      arena.close();
      throw e;
    }
  }

  /**
   * Marks pages; any thread. Cost: one atomic OR per 64 pages, and one per 4096 not marked lately.
   */
  void mark(long first, long count) {
    long last = first + count - 1;
    long firstWord = first >>> 6;
    long lastWord = last >>> 6;
    for (long word = firstWord; word <= lastWord; word++) {
      long mask = -1L;
      if (word == firstWord) {
        mask &= -1L << (first & 63);
      }
      if (word == lastWord) {
        mask &= -1L >>> (63 - (last & 63));
      }
      long _ = (long) WORD.getAndBitwiseOr(map, word << 3, mask);
    }
    long lastBit = lastWord / WORDS_PER_SUMMARY_BIT;
    for (long bit = firstWord / WORDS_PER_SUMMARY_BIT; bit <= lastBit; bit++) {
      // A summary bit that is set after the word was is one that no taker has come to yet: it reads
      // the word later. The word's own OR is never left out: it is what orders the page's write.
      if (((long) WORD.getVolatile(top, bit >>> 6 << 3) & 1L << (bit & 63)) == 0) {
        long _ = (long) WORD.getAndBitwiseOr(top, bit >>> 6 << 3, 1L << (bit & 63));
      }
    }
  }

  /**
   * Moves all marks into a plane that the caller owns meanwhile.
   *
   * @return how many words were looked at
   */
  long take(MemorySegment into) {
    long looked = 0;
    for (long s = 0; s < summaryWords; s++) {
      if ((long) WORD.getVolatile(top, s << 3) == 0) {
        continue;
      }
      long bits = (long) WORD.getAndSet(top, s << 3, 0L);
      while (bits != 0) {
        long firstWord = (s << 6 | Long.numberOfTrailingZeros(bits)) * WORDS_PER_SUMMARY_BIT;
        long endWord = Math.min(firstWord + WORDS_PER_SUMMARY_BIT, into.byteSize() >>> 3);
        for (long word = firstWord; word < endWord; word++) {
          looked++;
          if ((long) WORD.getVolatile(map, word << 3) != 0) {
            long marks = (long) WORD.getAndSet(map, word << 3, 0L);
            into.set(JAVA_LONG, word << 3, into.get(JAVA_LONG, word << 3) | marks);
          }
        }
        bits &= bits - 1;
      }
    }
    return looked;
  }

  @Override
  public void close() {
    arena.close();
  }
}
