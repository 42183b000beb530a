package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.FileHoles;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Memfd;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.FutureTask;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Holes of files stay holes at both ends, and whatever is no hole arrives. */
@Timeout(300)
class SparseMemoryTest {
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final int MADV_REMOVE = 9;

  /** A memfd that is mapped, and a block that knows its holes. */
  private static final class Sparse implements AutoCloseable {
    final Memfd memfd;
    final Mapping mapping;
    final RamBlock block;

    Sparse(long pages) {
      memfd = Memfd.create("sparse", pages * Pages.SIZE);
      mapping = memfd.map();
      block = RamBlock.ofFile("ram", mapping.segment(), memfd.fd(), 0);
    }

    void set(long page, long value) {
      mapping.segment().set(JAVA_LONG, page * Pages.SIZE + (page * 8 & 4088), value);
    }

    void remove(long page, long count) {
      Libc.check(
          Libc.madvise(
              mapping.segment().address() + page * Pages.SIZE, count * Pages.SIZE, MADV_REMOVE),
          "madvise(MADV_REMOVE)");
    }

    /** Number of pages that the file has memory for. */
    long allocatedPages() throws IOException {
      String file = "/proc/" + ProcessHandle.current().pid() + "/fd/" + memfd.fd().acquire();
      try {
        Process stat = new ProcessBuilder("stat", "-L", "-c", "%b", file).start();
        String blocks = new String(stat.getInputStream().readAllBytes()).strip();
        return Long.parseLong(blocks) * 512 / Pages.SIZE;
      } finally {
        memfd.fd().release();
      }
    }

    @Override
    public void close() {
      mapping.close();
      memfd.close();
    }
  }

  private static FutureTask<StreamReader> load(Connection connection, RamBlock block) {
    return Connection.inBackground(
        () -> {
          try (StreamReader reader =
              new StreamReader(connection.far(), "none", List.of(block), List.of())) {
            reader.loadUntilHandover();
            return reader;
          }
        });
  }

  @Test
  void aGuestOfWhichLittleWasTouchedHoldsLittleAtBothEnds() throws Exception {
    long pages = (2L << 30) / Pages.SIZE;
    long touched = (16 << 20) / Pages.SIZE;
    try (Connection connection = Connection.open();
        Sparse from = new Sparse(pages);
        Sparse to = new Sparse(pages);
        StreamWriter writer = new StreamWriter(connection.near(), new Throttle(0))) {
      for (long page = 0; page < touched; page++) {
        // Half in one piece, half with holes of a page between.
        from.set(page < touched / 2 ? page : pages / 2 + 2 * page, page + 1);
      }
      long before = from.allocatedPages();
      FutureTask<StreamReader> load = load(connection, to.block);
      writer.begin("none");
      writer.startRam(List.of(from.block));
      writer.beginRound();
      writer.pages(from.block, 0, pages);
      writer.endRound();
      writer.endRam();
      writer.eof();
      assertEquals(touched, load.get().pagesRead());
      assertEquals(pages - touched, load.get().zeroPagesRead());
      assertEquals(touched, writer.pagesWritten());
      assertEquals(pages - touched, writer.zeroPagesWritten());
      assertEquals(before, from.allocatedPages(), "the source's file grew by being read");
      assertTrue(
          to.allocatedPages() <= before,
          to.allocatedPages() + " pages at the destination, " + before + " at the source");
      // This reads all of both, and so fills them.
      assertEquals(-1, from.mapping.segment().mismatch(to.mapping.segment()));
    }
  }

  @Test
  void whatIsWrittenZeroedAndPunchedBetweenRoundsArrives() throws Exception {
    SplittableRandom random = Seed.random();
    for (int i = 0; i < 20 * EFFORT; i++) {
      long pages = random.nextLong(1, 1500);
      try (Connection connection = Connection.open();
          Sparse from = new Sparse(pages);
          Sparse to = new Sparse(pages);
          StreamWriter writer = new StreamWriter(connection.near(), new Throttle(0))) {
        // What the destination has before is not what the guest has.
        for (long page = 0; page < pages; page += random.nextInt(1, 100)) {
          to.set(page, -1);
        }
        FutureTask<StreamReader> load = load(connection, to.block);
        writer.begin("none");
        writer.startRam(List.of(from.block));
        for (int round = 0; round < 6; round++) {
          boolean[] dirty = new boolean[(int) pages];
          for (int write = 0; write < 40; write++) {
            int first = random.nextInt((int) pages);
            int count = random.nextInt(1, Math.min(90, (int) pages - first + 1));
            switch (random.nextInt(3)) {
              case 0 -> {
                for (long page = first; page < first + count; page++) {
                  from.set(page, random.nextLong());
                }
              }
              case 1 ->
                  from.mapping
                      .segment()
                      .asSlice(first * Pages.SIZE, count * Pages.SIZE)
                      .fill((byte) 0);
              default -> from.remove(first, count);
            }
            Arrays.fill(dirty, first, first + count, true);
          }
          writer.beginRound();
          if (round == 0) {
            writer.pages(from.block, 0, pages);
          }
          for (int page = 0; page < pages; page++) {
            int end = page;
            while (end < pages && dirty[end]) {
              end++;
            }
            if (end > page) {
              writer.pages(from.block, page, end - page);
              page = end;
            }
          }
          writer.endRound();
        }
        writer.endRam();
        writer.eof();
        load.get();
        MemorySegment memory = from.mapping.segment();
        assertEquals(-1, memory.mismatch(to.mapping.segment()), "first byte that differs");
      }
    }
  }

  @Test
  void aFileThatIsNotTheMemorysIsRefused() throws Exception {
    try (Sparse sparse = new Sparse(8);
        Memfd copy = Memfd.create("other", 8 * Pages.SIZE);
        Mapping plain = Mapping.anonymous(8 * Pages.SIZE)) {
      MemorySegment memory = sparse.mapping.segment();
      Fd fd = sparse.memfd.fd();
      FileHoles.of(memory.asSlice(2 * Pages.SIZE), fd, 2 * Pages.SIZE);
      assertThrows(IllegalArgumentException.class, () -> FileHoles.of(memory, copy.fd(), 0));
      assertThrows(IllegalArgumentException.class, () -> FileHoles.of(memory, fd, Pages.SIZE));
      assertThrows(IllegalArgumentException.class, () -> FileHoles.of(plain.segment(), fd, 0));
    }
  }
}
