package dev.tidemark.bench.guest;

import java.lang.foreign.MemorySegment;
import java.util.zip.CRC32C;

/**
 * A digest of whole memory: CRC-32C of each chunk of 64 MiB, folded into 64 bits in their order.
 * For accidents, not for adversaries; but a key moves the places where the chunks are cut, so that
 * the digest for one key does not follow from that for another, and whoever says it has read the
 * memory.
 *
 * <p>Cost: reads all of it once, on two threads.
 */
public final class MemoryDigest {
  private static final long CHUNK = 64L << 20;
  private static final long ODD = 0x9E3779B97F4A7C15L;

  private MemoryDigest() {}

  /**
   * Digests memory that nobody writes meanwhile.
   *
   * @throws InterruptedException if the thread was interrupted
   */
  public static long of(MemorySegment memory) throws InterruptedException {
    return of(memory, memory.byteSize(), CHUNK);
  }

  /**
   * As {@link #of(MemorySegment)}, for a key.
   *
   * @param memory more than a byte
   */
  public static long of(MemorySegment memory, long key) throws InterruptedException {
    long longest = Math.min(CHUNK, memory.byteSize() - 1);
    return of(memory, key, 1 + Long.remainderUnsigned(key * ODD, longest));
  }

  /**
   * @param first bytes of the first chunk, up to {@link #CHUNK}
   */
  private static long of(MemorySegment memory, long seed, long first) throws InterruptedException {
    long others = Math.max(0, memory.byteSize() - first);
    int[] crcs = new int[Math.toIntExact(1 + (others + CHUNK - 1) / CHUNK)];
    Thread other =
        Thread.ofPlatform().name("memory digest").start(() -> every(memory, first, crcs, 1));
    every(memory, first, crcs, 0);
    other.join();
    long digest = seed;
    for (int crc : crcs) {
      digest = (digest ^ Integer.toUnsignedLong(crc)) * ODD;
      digest ^= digest >>> 29;
    }
    return digest;
  }

  private static void every(MemorySegment memory, long first, int[] crcs, int from) {
    CRC32C crc = new CRC32C();
    for (int i = from; i < crcs.length; i += 2) {
      long start = i == 0 ? 0 : first + (i - 1) * CHUNK;
      long end = Math.min(memory.byteSize(), first + i * CHUNK);
      crc.reset();
      crc.update(memory.asSlice(start, end - start).asByteBuffer());
      crcs[i] = (int) crc.getValue();
    }
  }
}
