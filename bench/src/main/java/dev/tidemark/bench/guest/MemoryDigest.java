package dev.tidemark.bench.guest;

import java.lang.foreign.MemorySegment;
import java.util.zip.CRC32C;

/**
 * A digest of whole memory: CRC-32C of each chunk of 64 MiB, folded into 64 bits in their order.
 * For accidents, not for adversaries.
 *
 * <p>Cost: reads all of it once, on two threads.
 */
public final class MemoryDigest {
  private static final long CHUNK = 64L << 20;

  private MemoryDigest() {}

  /**
   * Digests memory that nobody writes meanwhile.
   *
   * @throws InterruptedException if the thread was interrupted
   */
  public static long of(MemorySegment memory) throws InterruptedException {
    int chunks = Math.toIntExact((memory.byteSize() + CHUNK - 1) / CHUNK);
    int[] crcs = new int[chunks];
    Thread other = Thread.ofPlatform().name("memory digest").start(() -> every(memory, crcs, 1));
    every(memory, crcs, 0);
    other.join();
    long digest = memory.byteSize();
    for (int crc : crcs) {
      digest = (digest ^ Integer.toUnsignedLong(crc)) * 0x9E3779B97F4A7C15L;
      digest ^= digest >>> 29;
    }
    return digest;
  }

  private static void every(MemorySegment memory, int[] crcs, int first) {
    CRC32C crc = new CRC32C();
    for (int i = first; i < crcs.length; i += 2) {
      long start = i * CHUNK;
      long bytes = Math.min(CHUNK, memory.byteSize() - start);
      crc.reset();
      crc.update(memory.asSlice(start, bytes).asByteBuffer());
      crcs[i] = (int) crc.getValue();
    }
  }
}
