package dev.tidemark.bench.qemu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import org.junit.jupiter.api.Test;

class MemoryDumpTest {
  @Test
  void takesTheWordsAndNotTheirAddresses() {
    String dump =
        """
        0000000000202000: 0x0000000000000001 0xffffffffffffffff\r
        0000000000202010: 0x8000000000000000\r
        """;
    assertArrayEquals(new long[] {1, -1, Long.MIN_VALUE}, MemoryDump.words(dump));
    assertArrayEquals(new long[0], MemoryDump.words("Cannot access memory\r\n"));
  }
}
