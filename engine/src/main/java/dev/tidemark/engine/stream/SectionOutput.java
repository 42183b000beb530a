package dev.tidemark.engine.stream;

import java.lang.foreign.MemorySegment;

/**
 * Where a section's data is written to. Numbers go most significant byte first, as in all of the
 * stream. The stream carries no length: the loading side must read exactly what is written here.
 */
public interface SectionOutput {
  /** Writes the low 8 bits. */
  void be8(int value);

  /** Writes the low 16 bits. */
  void be16(int value);

  /** Writes 32 bits. */
  void be32(int value);

  /** Writes 64 bits. */
  void be64(long value);

  /** Writes all bytes of an array. */
  void bytes(byte[] source);

  /** Writes all bytes of a piece of memory, which may change once this returns. */
  void bytes(MemorySegment source);
}
