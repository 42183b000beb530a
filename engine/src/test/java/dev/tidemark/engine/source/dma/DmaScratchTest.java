package dev.tidemark.engine.source.dma;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.log.LogCounters;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import java.util.BitSet;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class DmaScratchTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final long PAGE = LabDma.PAGE;
  private static final int PAGES = 3000;

  static {
    System.out.println("DmaScratchTest: -Dtidemark.seed=" + SEED);
  }

  private final Mapping memory = Mapping.anonymous(PAGES * PAGE);
  private final RamBlockLog[] logs = new RamBlockLog[2];
  private final DmaMap map = new DmaMap();
  private final DmaScratch scratch = new DmaScratch();

  @BeforeEach
  void makeLogs() {
    for (int i = 0; i < logs.length; i++) {
      logs[i] = new RamBlockLog(new RamBlock("ram" + i, memory.segment()));
    }
    map.lock();
  }

  @AfterEach
  void free() {
    map.unlock();
    scratch.close();
    for (RamBlockLog log : logs) {
      log.close();
    }
    memory.close();
  }

  private BitSet take(int block) {
    logs[block].mergeMarks();
    BitSet pages = LabDma.pagesOf(logs[block].harvest());
    logs[block].epoch().commit();
    return pages;
  }

  private void setBit(long bit) {
    Bitmaps.scalar().set(scratch.segment(), bit, 1);
  }

  private boolean isClean() {
    return !Bitmaps.scalar().any(scratch.segment(), 0, scratch.segment().byteSize() * 8);
  }

  @Test
  void everyBitLandsOnItsPageWhateverTheMappings() {
    var random = new SplittableRandom(SEED);
    for (int trial = 0; trial < 200; trial++) {
      String at = "seed " + SEED + ", trial " + trial;
      map.clear();
      // Read-only mappings and, for a kernel that does not mind them, holes.
      int[] block = new int[2000];
      int[] page = new int[2000];
      int end = 0;
      while (end < 1500) {
        int pages = random.nextInt(4) == 0 ? 1 + random.nextInt(400) : 1 + random.nextInt(3);
        boolean writable = random.nextInt(8) != 0;
        int b = random.nextInt(2);
        int first = random.nextInt(PAGES - pages);
        map.map(end * PAGE, pages * PAGE, logs[b], first, writable);
        for (int i = 0; i < pages; i++) {
          block[end + i] = writable ? b : -1;
          page[end + i] = first + i;
        }
        end += pages;
        if (end < 1500 && random.nextInt(20) == 0) {
          block[end] = -1;
          end++;
        }
      }
      long bit = random.nextBoolean() ? scratch.place(end) : scratch.reserve(end);
      BitSet[] expected = {new BitSet(), new BitSet()};
      long marked = 0;
      int density = 1 << random.nextInt(8);
      for (int i = 0; i < end; i++) {
        if (random.nextInt(density) == 0) {
          setBit(bit + i);
          if (block[i] >= 0) {
            expected[block[i]].set(page[i]);
            marked++;
          }
        }
      }
      if (random.nextBoolean()) {
        scratch.merge(map, 0, end, bit);
      } else {
        assertEquals(marked, scratch.mark(map, 0, end, bit), at);
      }
      assertEquals(expected[0], take(0), at);
      assertEquals(expected[1], take(1), at);
      assertTrue(isClean(), at);
    }
  }

  @Test
  void anAnswerIsReadInOnePass() {
    map.map(0, 2048 * PAGE, logs[0], 3, true);
    long bit = scratch.place(2048);
    setBit(bit + 7);
    setBit(bit + 2047);
    LogCounters before = logs[0].counters();
    scratch.merge(map, 0, 2048, bit);
    assertEquals(2048 / 64, logs[0].counters().since(before).mergedWords());
    map.clear();
    for (int i = 0; i < 2048; i++) {
      map.map(i * PAGE, PAGE, logs[0], (i * 7 + 1) % PAGES, true);
    }
    setBit(bit);
    setBit(bit + 2047);
    before = logs[0].counters();
    scratch.merge(map, 0, 2048, bit);
    assertEquals(2048 / 64, logs[0].counters().since(before).mergedWords());
  }

  @Test
  void anAnswerEndsAtTheGuardPageAndTheScratchGrowsForIt() {
    long room = scratch.segment().byteSize();
    assertEquals(room * 8 - 64, scratch.place(1));
    assertEquals(room * 8 - 128, scratch.place(65));
    assertEquals(0, scratch.place(room * 8));
    assertEquals(room, scratch.segment().byteSize());
    long bit = scratch.place(room * 8 + 1);
    assertTrue(scratch.segment().byteSize() > room);
    assertEquals(scratch.segment().byteSize() * 8, bit + room * 8 + 64);
    assertTrue(isClean());
    assertFalse(scratch.isFull(bit, 1));
    setBit(bit);
    assertTrue(scratch.isFull(bit, 1));
    assertFalse(scratch.isFull(bit, 2));
  }
}
