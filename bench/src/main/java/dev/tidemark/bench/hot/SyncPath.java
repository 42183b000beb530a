package dev.tidemark.bench.hot;

import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.Epoch;
import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.BitSet;

/**
 * A whole round but for the sending: a source that the kernel answers by overwriting, one into
 * which it ORs, harvest, all runs, commit. The kernel's part is the same C routine for both sides.
 */
public final class SyncPath implements AutoCloseable {
  private final long bytes;
  private final Mapping answer;
  private final Mapping scratch;
  private final Mapping runs;
  private final long runCount;
  private final RamBlockLog log;
  private final BitSet dirty = new BitSet();
  private final MemorySegment qemu;

  /**
   * @param ramBytes of guest memory, which is only reserved in name
   * @param input of each of the two sources, from seeds of their own
   */
  @SuppressWarnings("restricted")
  public SyncPath(long ramBytes, BitmapInput input) {
    bytes = ramBytes / Pages.SIZE / 8;
    answer = Mapping.guarded(bytes);
    scratch = Mapping.guarded(bytes);
    input.fill(answer.segment(), 0);
    try (Mapping other = Mapping.guarded(bytes)) {
      input.fill(other.segment(), 1);
      RunCursor cursor = new RunCursor();
      long count = 0;
      cursor.reset(other.segment(), 0, bytes * 8);
      for (int found = cursor.batch(); found > 0; found = cursor.batch()) {
        count += found;
      }
      runCount = count;
      runs = Mapping.guarded((count * 16 + 64) & -64);
      long at = 0;
      cursor.reset(other.segment(), 0, bytes * 8);
      for (int found = cursor.batch(); found > 0; found = cursor.batch()) {
        for (int run = 0; run < found; run++) {
          runs.segment().set(ValueLayout.JAVA_LONG, at, cursor.start(run));
          runs.segment().set(ValueLayout.JAVA_LONG, at + 8, cursor.length(run));
          at += 16;
        }
      }
    }
    // Nothing here touches guest memory.
    MemorySegment memory = MemorySegment.ofAddress(1L << 40).reinterpret(ramBytes);
    log = new RamBlockLog(new RamBlock("ram", memory));
    qemu = Rivals.qemuNew(bytes / Long.BYTES);
  }

  /** Tidemark's way. */
  public long tidemark() {
    try (FillPlane fill = log.fill()) {
      Rivals.kernelOverwrite(scratch.segment(), answer.segment(), bytes);
      fill.merge(scratch.segment(), 0, 0, bytes * 8);
      Rivals.kernelOr(fill.segment(), runs.segment(), runCount);
    }
    Epoch epoch = log.harvest();
    RunCursor cursor = epoch.runs();
    long sum = 0;
    for (int found = cursor.batch(); found > 0; found = cursor.batch()) {
      for (int run = 0; run < found; run++) {
        // As much as the other side makes of its pages one by one.
        long first = cursor.start(run);
        long length = cursor.length(run);
        sum += length * first + length * (length - 1) / 2;
      }
    }
    epoch.commit();
    return sum;
  }

  /** As one would write it with Java's own {@link BitSet}. */
  public long bitSet() {
    Rivals.kernelOverwrite(scratch.segment(), answer.segment(), bytes);
    dirty.or(BitSet.valueOf(scratch.segment().asByteBuffer().order(ByteOrder.LITTLE_ENDIAN)));
    scratch.segment().fill((byte) 0);
    Rivals.kernelOr(scratch.segment(), runs.segment(), runCount);
    dirty.or(BitSet.valueOf(scratch.segment().asByteBuffer().order(ByteOrder.LITTLE_ENDIAN)));
    long sum = 0;
    for (int first = dirty.nextSetBit(0); first >= 0; ) {
      int end = dirty.nextClearBit(first);
      long length = end - first;
      sum += length * first + length * (length - 1) / 2;
      first = dirty.nextSetBit(end);
    }
    dirty.clear();
    return sum;
  }

  /** What memory allows: the kernel's copy, then reading both bitmaps once. */
  public long limit() {
    Rivals.kernelOverwrite(scratch.segment(), answer.segment(), bytes);
    return (Rivals.limitRead(scratch.segment(), bytes) + Rivals.limitRead(answer.segment(), bytes))
        & 0;
  }

  /** QEMU's way. */
  public long qemu() {
    return Rivals.qemuSync(qemu, answer.segment(), runs.segment(), runCount, bytes / Long.BYTES);
  }

  @Override
  public void close() {
    answer.close();
    scratch.close();
    runs.close();
    log.close();
    Rivals.qemuFree(qemu);
  }
}
