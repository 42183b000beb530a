package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.util.SplittableRandom;

/** A RAM block with a page of canaries on each side. */
final class GuestMemory implements AutoCloseable {
  private static final byte CANARY = (byte) 0xc5;

  private final Mapping mapping;
  final RamBlock block;

  GuestMemory(String name, long pages) {
    mapping = Mapping.anonymous((pages + 2) * Pages.SIZE);
    MemorySegment all = mapping.segment();
    block = new RamBlock(name, all.asSlice(Pages.SIZE, pages * Pages.SIZE));
    canary(0).fill(CANARY);
    canary((pages + 1) * Pages.SIZE).fill(CANARY);
  }

  private MemorySegment canary(long offset) {
    return mapping.segment().asSlice(offset, Pages.SIZE);
  }

  GuestMemory fillPage(long page, int value) {
    page(page).fill((byte) value);
    return this;
  }

  MemorySegment page(long page) {
    return block.memory().asSlice(page * Pages.SIZE, Pages.SIZE);
  }

  /** Random words, a zero page now and then, and now and then one that is zero but for its end. */
  void randomize(SplittableRandom random, long page) {
    MemorySegment memory = page(page);
    memory.fill((byte) 0);
    switch (random.nextInt(8)) {
      case 0, 1, 2 -> {}
      case 3 -> memory.set(JAVA_BYTE, Pages.SIZE - 1, (byte) 1);
      default -> {
        for (long at = 0; at < Pages.SIZE; at += 8) {
          memory.set(JAVA_LONG, at, random.nextLong());
        }
      }
    }
  }

  byte[] bytes() {
    return block.memory().toArray(JAVA_BYTE);
  }

  void checkCanaries() {
    for (long offset : new long[] {0, mapping.segment().byteSize() - Pages.SIZE}) {
      for (byte found : canary(offset).toArray(JAVA_BYTE)) {
        assertEquals(CANARY, found, "a byte outside block " + block.name());
      }
    }
  }

  static void assertSame(GuestMemory expected, GuestMemory found) {
    long at = expected.block.memory().mismatch(found.block.memory());
    assertEquals(-1, at, "first byte of block " + expected.block.name() + " that differs");
    found.checkCanaries();
  }

  @Override
  public void close() {
    mapping.close();
  }
}
