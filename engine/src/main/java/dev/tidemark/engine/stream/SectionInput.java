package dev.tidemark.engine.stream;

import java.lang.foreign.MemorySegment;

/**
 * Where a section's data is read from. Every method waits for its bytes, and throws {@link
 * StreamException} if the stream ends before they came.
 */
public interface SectionInput {
  /** Reads a byte, 0 to 255. */
  int be8();

  /** Reads 16 bits, 0 to 65535. */
  int be16();

  /** Reads 32 bits. */
  int be32();

  /** Reads 64 bits. */
  long be64();

  /** Fills an array. */
  void bytes(byte[] target);

  /** Fills a piece of memory. */
  void bytes(MemorySegment target);

  /**
   * Reads bytes and forgets them.
   *
   * @param bytes 0 or more
   */
  void skip(long bytes);

  /** How many bytes of the stream were read before this one. */
  long position();
}
