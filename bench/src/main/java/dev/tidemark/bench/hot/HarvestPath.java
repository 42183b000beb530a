package dev.tidemark.bench.hot;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import java.util.BitSet;

/** Harvest and commit of one plane: scan and count it, go through its runs, clear it. */
public final class HarvestPath implements AutoCloseable {
  private final BitmapOps ops = Bitmaps.ops();
  private final long bytes;
  private final Mapping[] answers;
  private final Mapping plane;
  private final Mapping lines;
  private final RunCursor runs = new RunCursor();
  private int turn;

  /**
   * @param bytes of bitmap, a multiple of 64
   */
  public HarvestPath(long bytes, BitmapInput input) {
    this.bytes = bytes;
    // A branch predictor learns a small bitmap by heart.
    answers = new Mapping[bytes > 1 << 20 ? 1 : 16];
    for (int i = 0; i < answers.length; i++) {
      answers[i] = Mapping.guarded(bytes);
      input.fill(answers[i].segment(), i);
    }
    plane = Mapping.guarded(bytes);
    lines = Mapping.guarded(bytes / 512 + 64 & -64);
    for (int i = 0; i < answers.length; i++) {
      refill();
      long result = tidemark();
      refill(turn);
      long expected = same();
      if (result != expected) {
        throw new IllegalStateException("runs of " + input + ": " + result + " is not " + expected);
      }
    }
  }

  /** Makes the plane dirty again. */
  public void refill() {
    turn = (turn + 1) % answers.length;
    refill(turn);
  }

  private void refill(int with) {
    Rivals.kernelOverwrite(plane.segment(), answers[with].segment(), bytes);
  }

  /** Tidemark's way. */
  public long tidemark() {
    MemorySegment map = plane.segment();
    long words = bytes / Long.BYTES;
    long result = ops.summarize(map, words, lines.segment());
    runs.reset(map, lines.segment(), bytes * 8);
    for (int n = runs.batch(); n > 0; n = runs.batch()) {
      result += take(runs, n);
    }
    ops.clearLines(map, words, lines.segment());
    return result;
  }

  private static long take(RunCursor runs, int n) {
    long starts = 0;
    long lengths = 0;
    for (int i = 0; i < n; i++) {
      starts += runs.start(i);
      lengths += runs.length(i);
    }
    return starts * 31 + lengths;
  }

  /** The same in C. */
  public long same() {
    return Rivals.sameHarvest(plane.segment(), bytes / Long.BYTES, lines.segment());
  }

  /** As one would write it with Java's own {@link BitSet}. */
  public long bitSet() {
    long result = 0;
    BitSet set = BitSet.valueOf(plane.segment().asByteBuffer().order(ByteOrder.LITTLE_ENDIAN));
    result += set.cardinality();
    for (int first = set.nextSetBit(0); first >= 0; ) {
      int end = set.nextClearBit(first);
      result += first * 31L + end - first;
      first = set.nextSetBit(end);
    }
    plane.segment().fill((byte) 0);
    return result;
  }

  /** What memory allows: reading it once. */
  public long limitRead() {
    return Rivals.limitRead(plane.segment(), bytes) & 0;
  }

  /** Find-next-bit with test-and-clear per page, in C. */
  public long bitByBit() {
    return Rivals.bitByBitHarvest(plane.segment(), bytes / Long.BYTES);
  }

  @Override
  public void close() {
    for (Mapping answer : answers) {
      answer.close();
    }
    plane.close();
    lines.close();
  }
}
