package dev.tidemark.engine.source.dma;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class DmaMapTest {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final long PAGE = Pages.SIZE;
  private static final long BLOCK_PAGES = 1 << 20;

  static {
    System.out.println("DmaMapTest: -Dtidemark.seed=" + SEED);
  }

  /** The model: one entry of a TreeMap by first IOVA page. */
  private record Entry(long pages, RamBlockLog log, long page, boolean writable) {}

  private record Run(long first, long pages, long mappings) {}

  private record Piece(long first, long pages, long writable, RamBlockLog log, long page) {}

  private final List<AutoCloseable> resources = new ArrayList<>();
  private final RamBlockLog[] logs = new RamBlockLog[3];
  private final DmaMap map = new DmaMap();

  @BeforeEach
  void makeBlocks() {
    for (int i = 0; i < logs.length; i++) {
      Mapping memory = Mapping.anonymous(BLOCK_PAGES * PAGE);
      resources.add(memory);
      logs[i] = new RamBlockLog(new RamBlock("ram" + i, memory.segment()));
      resources.add(logs[i]);
    }
  }

  @AfterEach
  void free() throws Exception {
    for (AutoCloseable resource : resources.reversed()) {
      resource.close();
    }
  }

  private void map(long first, long pages, int log, long page, boolean writable) {
    map.map(first * PAGE, pages * PAGE, logs[log], page, writable);
  }

  @Test
  void overlapsOfAnyKindAreRefusedAndChangeNothing() {
    map(10, 10, 0, 0, true);
    for (long[] range : new long[][] {{10, 10}, {9, 2}, {19, 1}, {12, 3}, {5, 30}, {0, 11}}) {
      var e =
          assertThrows(
              IllegalStateException.class,
              () -> map(range[0], range[1], 1, 0, true),
              "" + range[0]);
      assertTrue(e.getMessage().contains("mapped at 0xa000"), e.getMessage());
    }
    map(0, 10, 0, 0, true);
    map(20, 1, 0, 0, false);
    assertEquals(3, map.mappings());
    assertEquals(21, map.pages());
    assertEquals(20, map.writablePages());
  }

  @Test
  void unmappingNeverSplits() {
    map(10, 10, 0, 0, true);
    map(20, 10, 0, 10, false);
    for (long[] range : new long[][] {{11, 9}, {10, 9}, {10, 11}, {0, 29}, {29, 100}, {12, 2}}) {
      assertThrows(IllegalStateException.class, () -> map.unmap(range[0] * PAGE, range[1] * PAGE));
    }
    assertEquals(2, map.mappings());
    assertEquals(10 * PAGE, map.unmap(5 * PAGE, 15 * PAGE));
    assertEquals(0, map.unmap(5 * PAGE, 15 * PAGE));
    assertEquals(10 * PAGE, map.unmap(0, 1000 * PAGE));
    assertEquals(0, map.mappings() + map.pages() + map.writablePages());
  }

  @Test
  void onlyWholePagesInsideTheSpaceAndTheBlockAreTaken() {
    RamBlockLog log = logs[0];
    assertThrows(IllegalArgumentException.class, () -> map.map(1, PAGE, log, 0, true));
    assertThrows(IllegalArgumentException.class, () -> map.map(0, PAGE + 1, log, 0, true));
    assertThrows(IllegalArgumentException.class, () -> map.map(0, 0, log, 0, true));
    assertThrows(IllegalArgumentException.class, () -> map.map(-PAGE, 2 * PAGE, log, 0, true));
    assertThrows(IndexOutOfBoundsException.class, () -> map.map(0, PAGE, log, -1, true));
    assertThrows(IndexOutOfBoundsException.class, () -> map.map(0, PAGE, log, BLOCK_PAGES, true));
    assertThrows(
        IndexOutOfBoundsException.class, () -> map.map(0, 2 * PAGE, log, BLOCK_PAGES - 1, true));
    assertEquals(0, map.mappings());
    // Above the middle of the space, where a signed address would be negative.
    map.map(-3 * PAGE, 2 * PAGE, log, BLOCK_PAGES - 2, true);
    map.map(0, PAGE, log, 0, true);
    map.lock();
    try {
      DmaCursor cursor = new DmaCursor();
      cursor.reset(map);
      assertTrue(cursor.next());
      assertEquals(0, cursor.iova());
      assertTrue(cursor.next());
      assertEquals(-3 * PAGE, cursor.iova());
      assertEquals(2 * PAGE, cursor.bytes());
      assertFalse(cursor.next());
    } finally {
      map.unlock();
    }
  }

  @Test
  void aCursorNeedsTheLockAndNoticesChanges() {
    map(1, 1, 0, 0, true);
    DmaCursor cursor = new DmaCursor();
    DmaRuns runs = new DmaRuns();
    assertThrows(IllegalMonitorStateException.class, () -> cursor.reset(map));
    assertThrows(IllegalMonitorStateException.class, () -> runs.reset(map, DmaRuns.Kind.ALL));
    map.lock();
    try {
      cursor.reset(map);
      runs.reset(map, DmaRuns.Kind.ALL);
      map(2, 1, 0, 0, true);
      assertThrows(java.util.ConcurrentModificationException.class, cursor::next);
      assertThrows(java.util.ConcurrentModificationException.class, runs::next);
    } finally {
      map.unlock();
    }
  }

  @Test
  void aRandomWalkAgreesWithATreeMap() {
    var random = new SplittableRandom(SEED);
    for (int trial = 0; trial < 4; trial++) {
      String at = "seed " + SEED + ", trial " + trial;
      map.clear();
      TreeMap<Long, Entry> model = new TreeMap<>();
      // A narrow space makes adjacent mappings, a wide one holes.
      long space = trial % 2 == 0 ? 3_000 : 60_000;
      for (int step = 0; step < 6_000; step++) {
        int kind = random.nextInt(100);
        // Grows first and shrinks then, so that chunks split and join.
        boolean grow = step < 4_000 ? kind < 80 : kind < 20;
        if (grow) {
          mapSomething(random, model, space, at);
        } else if (kind < 98) {
          unmapSomething(random, model, space, at);
        } else {
          compare(random, model, space, at);
        }
      }
      compare(random, model, space, at);
    }
  }

  private void mapSomething(
      SplittableRandom random, TreeMap<Long, Entry> model, long space, String at) {
    long first = random.nextLong(space);
    long pages = random.nextInt(4) == 0 ? 1 + random.nextInt(64) : 1;
    int log = random.nextInt(logs.length);
    long page = random.nextBoolean() ? first : random.nextLong(BLOCK_PAGES - pages);
    boolean writable = random.nextInt(10) != 0;
    Map.Entry<Long, Entry> before = model.floorEntry(first);
    Long after = model.ceilingKey(first);
    boolean free =
        (before == null || before.getKey() + before.getValue().pages <= first)
            && (after == null || after >= first + pages);
    if (free) {
      map(first, pages, log, page, writable);
      model.put(first, new Entry(pages, logs[log], page, writable));
    } else {
      assertThrows(IllegalStateException.class, () -> map(first, pages, log, page, writable), at);
    }
  }

  private void unmapSomething(
      SplittableRandom random, TreeMap<Long, Entry> model, long space, String at) {
    long first = random.nextLong(space);
    long pages = 1 + random.nextInt(random.nextInt(50) == 0 ? 1_000 : 40);
    if (random.nextBoolean() && model.ceilingKey(first) != null) {
      first = model.ceilingKey(first);
      pages = model.get(first).pages;
    }
    long from = first;
    long end = first + pages;
    boolean whole = isEdge(model, from) && isEdge(model, end);
    if (whole) {
      var gone = model.subMap(from, end);
      long expected = gone.values().stream().mapToLong(Entry::pages).sum();
      gone.clear();
      assertEquals(expected * PAGE, map.unmap(from * PAGE, (end - from) * PAGE), at);
    } else {
      assertThrows(
          IllegalStateException.class, () -> map.unmap(from * PAGE, (end - from) * PAGE), at);
    }
  }

  private static boolean isEdge(TreeMap<Long, Entry> model, long edge) {
    var before = model.lowerEntry(edge);
    return before == null || before.getKey() + before.getValue().pages <= edge;
  }

  private void compare(SplittableRandom random, TreeMap<Long, Entry> model, long space, String at) {
    assertEquals(model.size(), map.mappings(), at);
    assertEquals(model.values().stream().mapToLong(Entry::pages).sum(), map.pages(), at);
    assertEquals(
        model.values().stream().filter(Entry::writable).mapToLong(Entry::pages).sum(),
        map.writablePages(),
        at);
    map.lock();
    try {
      DmaCursor cursor = new DmaCursor();
      cursor.reset(map);
      for (var entry : model.entrySet()) {
        assertTrue(cursor.next(), at);
        assertSameMapping(entry, cursor, at);
      }
      assertFalse(cursor.next(), at);
      for (int i = 0; i < 200; i++) {
        long page = random.nextLong(space);
        var holder = model.floorEntry(page);
        boolean mapped = holder != null && page < holder.getKey() + holder.getValue().pages;
        cursor.reset(map, page * PAGE, PAGE);
        assertEquals(mapped, cursor.next(), at);
        if (mapped) {
          assertSameMapping(holder, cursor, at);
          assertFalse(cursor.next(), at);
        }
      }
      cursor.reset(map);
      for (long page = 0; page < space; page += 1 + random.nextInt(random.nextInt(300) + 1)) {
        var holder = model.floorEntry(page);
        if (holder == null || page >= holder.getKey() + holder.getValue().pages) {
          holder = model.ceilingEntry(page);
        }
        assertEquals(holder != null, cursor.seek(page), at);
        if (holder != null) {
          assertSameMapping(holder, cursor, at);
        }
      }
      for (DmaRuns.Kind kind : DmaRuns.Kind.values()) {
        compareRuns(kind, model, at + ", " + kind);
      }
    } finally {
      map.unlock();
    }
  }

  private static void assertSameMapping(Map.Entry<Long, Entry> entry, DmaCursor cursor, String at) {
    assertEquals(entry.getKey() * PAGE, cursor.iova(), at);
    assertEquals(entry.getValue().pages, cursor.pages(), at);
    assertSame(entry.getValue().log, cursor.log(), at);
    assertEquals(entry.getValue().page, cursor.page(), at);
    assertEquals(entry.getValue().writable, cursor.isWritable(), at);
  }

  private void compareRuns(DmaRuns.Kind kind, TreeMap<Long, Entry> model, String at) {
    List<List<Map.Entry<Long, Entry>>> expected = new ArrayList<>();
    long end = -1;
    for (var entry : model.entrySet()) {
      boolean joins =
          entry.getKey() == end && (kind != DmaRuns.Kind.WRITABLE || entry.getValue().writable);
      if (!joins || expected.isEmpty()) {
        expected.add(new ArrayList<>());
      }
      if (kind != DmaRuns.Kind.WRITABLE || entry.getValue().writable) {
        expected.getLast().add(entry);
        end = entry.getKey() + entry.getValue().pages;
      } else {
        end = -1;
      }
    }
    if (kind == DmaRuns.Kind.SPANNING) {
      for (var run : expected) {
        while (!run.isEmpty() && !run.getFirst().getValue().writable) {
          run.removeFirst();
        }
        while (!run.isEmpty() && !run.getLast().getValue().writable) {
          run.removeLast();
        }
      }
    }
    expected.removeIf(List::isEmpty);
    DmaRuns runs = new DmaRuns();
    runs.reset(map, kind);
    for (var run : expected) {
      assertTrue(runs.next(), at);
      var last = run.getLast();
      long first = run.getFirst().getKey();
      assertEquals(
          new Run(first, last.getKey() + last.getValue().pages - first, run.size()),
          new Run(runs.iova() / PAGE, runs.bytes() / PAGE, runs.mappings()),
          at);
      List<Piece> pieces = new ArrayList<>();
      for (var entry : run) {
        Entry e = entry.getValue();
        long writable = e.writable ? e.pages : 0;
        Piece p = pieces.isEmpty() ? null : pieces.getLast();
        if (p != null && p.log == e.log && p.page + p.pages == e.page) {
          pieces.set(
              pieces.size() - 1,
              new Piece(p.first, p.pages + e.pages, p.writable + writable, p.log, p.page));
        } else {
          pieces.add(new Piece(entry.getKey(), e.pages, writable, e.log, e.page));
        }
      }
      for (Piece piece : pieces) {
        assertTrue(runs.nextPiece(), at);
        assertEquals(
            piece,
            new Piece(
                runs.pieceIova() / PAGE,
                runs.piecePages(),
                runs.pieceWritablePages(),
                runs.pieceLog(),
                runs.piecePage()),
            at);
      }
      assertFalse(runs.nextPiece(), at);
    }
    assertFalse(runs.next(), at);
  }

  @Test
  void aMillionSinglePageMappingsInAnyOrderStaySmallAndMakeOneRun() {
    int n = 1_000_000;
    int[] order = new int[n];
    var random = new SplittableRandom(SEED);
    for (int i = 0; i < n; i++) {
      int j = random.nextInt(i + 1);
      order[i] = order[j];
      order[j] = i;
    }
    for (int i = 0; i < n; i++) {
      map(order[i], 1, 0, order[n - 1 - i], true);
    }
    assertTrue(map.footprint() < 64L * n, map.footprint() + " bytes");
    System.out.println("a million mappings, random order: " + map.footprint() + " bytes");
    map.lock();
    try {
      DmaRuns runs = new DmaRuns();
      runs.reset(map, DmaRuns.Kind.WRITABLE);
      assertTrue(runs.next());
      assertEquals(n, runs.mappings());
      assertEquals(n, runs.pages());
      long pieces = 0;
      while (runs.nextPiece()) {
        pieces++;
      }
      assertTrue(pieces > n / 2);
      assertFalse(runs.next());
    } finally {
      map.unlock();
    }
    // Nine of ten go; what is left must not hold on to the room of all.
    for (int i = 0; i < n; i++) {
      if (order[i] % 10 != 0) {
        assertEquals(PAGE, map.unmap(order[i] * PAGE, PAGE));
      }
    }
    assertEquals(n / 10, map.mappings());
    assertTrue(map.footprint() < 100L * (n / 10), map.footprint() + " bytes");
    assertEquals(n / 10 * PAGE, map.unmap(0, n * PAGE));
    assertEquals(0, map.mappings());
    for (int i = 0; i < n; i++) {
      map(i, 1, 0, i, true);
    }
    assertTrue(map.footprint() < 26L * n, "ascending: " + map.footprint() + " bytes");
  }

  @Test
  void markingMarksWhatDevicesMayWriteAndNothingElse() {
    map(100, 10, 0, 5, true);
    map(110, 10, 0, 70, false);
    map(200, 1, 1, 7, true);
    map(201, 3, 1, 6, true);
    map.markWritable();
    for (RamBlockLog log : logs) {
      log.mergeMarks();
    }
    assertEquals(10, logs[0].dirtyPages());
    assertEquals(3, logs[1].dirtyPages());
    assertEquals(0, logs[2].dirtyPages());
  }
}
