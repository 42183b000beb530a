package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.Vectors.ALL;
import static dev.tidemark.engine.bitmap.Vectors.BYTES;
import static dev.tidemark.engine.bitmap.Vectors.LE;
import static dev.tidemark.engine.bitmap.Vectors.SPECIES;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorSpecies;

/**
 * What the kernels have in common, which is the memory that they take vectors from. Only {@link
 * VectorBitmapOps} and its parts may name this class.
 *
 * <p>A kernel is one static method that begins with {@link #guard} or takes addresses, because a
 * vector that crosses a call is boxed. C2 always inlines the JDK's methods on vectors; ours it
 * inlines where it finds the place hot, and elsewhere only while their own code is small, which is
 * chance. So kernels load, store and test vectors by the JDK's.
 */
final class Vectors {
  // A species that is no constant costs a factor of ten and boxes every vector.
  static final VectorSpecies<Long> SPECIES = LongVector.SPECIES_PREFERRED;
  static final int BYTES = SPECIES.vectorByteSize();

  /** Vectors are taken in pairs, as an addition to one sum has to wait for the last. */
  static final int PAIR = 2 * BYTES;

  /** Bytes in a line of a summary: what one of its bits stands for. */
  static final int LINE = 64;

  static final ByteOrder LE = ByteOrder.LITTLE_ENDIAN;

  /** The scope of memory that no arena closes. */
  static final MemorySegment.Scope ENDLESS = Arena.global().scope();

  /**
   * All addresses. Of a segment of constant size C2 knows that an index with few enough bits lies
   * in it, and has nothing to check in a loop. Only for memory of {@link #ENDLESS} scope, in whose
   * bounds a range was found to be: for another a check would find out that it was closed.
   */
  static final MemorySegment ALL = Libc.memory(0, Long.MAX_VALUE);

  private Vectors() {}

  /**
   * Tells the compiler what kind of segment this call site sees. Without it, a heap segment seen
   * anywhere in the process by the JDK's shared access code makes kernels five times slower.
   */
  static void guard(MemorySegment map) {
    if (!map.isNative()) {
      throw new AssertionError("heap segment in a kernel");
    }
  }

  /** Memory at an address of two bits less than a segment may have. */
  static LongVector at(long address) {
    return LongVector.fromMemorySegment(SPECIES, ALL, address & Long.MAX_VALUE >>> 1, LE);
  }

  /** Sets whole vectors to a word. */
  static void fill(MemorySegment map, long offset, long bytes, long word) {
    if (bytes == 0) {
      return;
    }
    guard(map);
    LongVector value = LongVector.broadcast(SPECIES, word);
    for (long i = offset; i < offset + bytes; i += BYTES) {
      value.intoMemorySegment(map, i, LE);
    }
  }
}
