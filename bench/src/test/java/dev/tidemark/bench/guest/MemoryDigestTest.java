package dev.tidemark.bench.guest;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;

class MemoryDigestTest {
  @Test
  void everyByteAndItsPlaceCount() throws InterruptedException {
    long chunk = 64L << 20;
    try (Arena arena = Arena.ofShared()) {
      MemorySegment memory = arena.allocate(2 * chunk + 5);
      Set<Long> digests = new HashSet<>();
      assertTrue(digests.add(MemoryDigest.of(memory)));
      for (long at : new long[] {0, 1, chunk - 1, chunk, 2 * chunk, 2 * chunk + 4}) {
        memory.set(JAVA_BYTE, at, (byte) 1);
        assertTrue(digests.add(MemoryDigest.of(memory)), "byte " + at);
        memory.set(JAVA_BYTE, at, (byte) 0);
      }
      assertTrue(digests.add(MemoryDigest.of(memory.asSlice(0, 2 * chunk))), "the length");
      assertEquals(MemoryDigest.of(memory), MemoryDigest.of(memory));
    }
  }
}
