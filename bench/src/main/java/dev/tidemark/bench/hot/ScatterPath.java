package dev.tidemark.bench.hot;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;

/**
 * Merging a bitmap in IOVA order into one in page order: pieces of it, as mappings are, each
 * shifted by a number of bits of its own.
 */
public final class ScatterPath implements AutoCloseable {
  private final BitmapOps ops = Bitmaps.ops();
  private final long bytes;
  private final long piece;
  private final Mapping answer;
  private final Mapping source;
  private final Mapping plane;
  private final Mapping places;
  private final long pieces;

  /**
   * @param bytes of bitmap, a multiple of 64
   * @param piece pages in a mapping
   */
  public ScatterPath(long bytes, long piece, BitmapInput input) {
    this.bytes = bytes;
    this.piece = piece;
    answer = Mapping.guarded(bytes);
    source = Mapping.guarded(bytes + 64);
    plane = Mapping.guarded(bytes + 64);
    input.fill(answer.segment(), 0);
    // The last piece may be moved on by up to 63 pages, so all are.
    pieces = bytes * 8 / piece - 1;
    places = Mapping.guarded(pieces * 8 + 63 & -64);
    long[] order = new long[(int) pieces];
    SplittableRandom random = new SplittableRandom(BitmapInput.SEED);
    long shift = random.nextLong(64);
    for (int i = 0; i < pieces; i++) {
      int other = random.nextInt(i + 1);
      order[i] = order[other];
      order[other] = i * piece + shift;
    }
    MemorySegment.copy(order, 0, places.segment(), ValueLayout.JAVA_LONG, 0, order.length);
    refill();
    tidemark();
  }

  /** Writes the source anew. */
  public void refill() {
    Rivals.kernelOverwrite(source.segment(), answer.segment(), bytes);
  }

  /** Merges each piece and clears it. */
  public long tidemark() {
    MemorySegment to = plane.segment();
    MemorySegment from = source.segment();
    MemorySegment where = places.segment();
    long count = 0;
    for (long i = 0; i < pieces; i++) {
      long page = where.get(ValueLayout.JAVA_LONG, i << 3);
      count += ops.orCountClear(to, page, from, i * piece, piece);
    }
    return count;
  }

  /** In C, by the word. */
  public long rival() {
    return Rivals.scatter(plane.segment(), source.segment(), places.segment(), pieces, piece);
  }

  /** In C, bit by bit. */
  public long bitByBit() {
    return Rivals.scatterBits(plane.segment(), source.segment(), places.segment(), pieces, piece);
  }

  @Override
  public void close() {
    answer.close();
    source.close();
    plane.close();
    places.close();
  }
}
