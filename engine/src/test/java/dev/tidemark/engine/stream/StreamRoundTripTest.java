package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.FutureTask;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(300)
class StreamRoundTripTest {
  private static final Throttle UNLIMITED = new Throttle(0);

  @Test
  void memoryOfSeveralBlocksArrivesOverSeveralRounds() throws Exception {
    try (Connection connection = Connection.open()) {
      roundTrip(connection.near(), connection.far(), 3000, 4);
    }
  }

  @Test
  void theFirstPageIsWrittenWhenItsRecordIs() throws Exception {
    try (Connection connection = Connection.open();
        GuestMemory memory = new GuestMemory("pc.ram", 2);
        StreamWriter writer = new StreamWriter(connection.near(), UNLIMITED)) {
      writer.begin("none");
      writer.startRam(List.of(memory.block));
      writer.ping(1);
      assertEquals(0, writer.firstPageNanos(), "nothing but headers");
      writer.beginRound();
      long before = System.nanoTime();
      writer.pages(memory.block, 0, 1);
      assertEquals(0, writer.firstPageNanos(), "a zero page that waits for more");
      writer.flush();
      long first = writer.firstPageNanos();
      assertTrue(first - before >= 0 && first - System.nanoTime() <= 0);
      memory.fillPage(1, 7);
      writer.pages(memory.block, 1, 1);
      writer.endRound();
      assertEquals(first, writer.firstPageNanos());
    }
  }

  @Test
  void aStreamThatDribblesByteByByteArrives() throws Exception {
    try (Connection in = Connection.open();
        Connection out = Connection.open()) {
      FutureTask<Void> relay =
          Connection.inBackground(
              () -> {
                dribble(in.far(), out.near());
                return null;
              });
      roundTrip(in.near(), out.far(), 12, 2);
      in.near().shutdownOutput();
      relay.get();
    }
  }

  private static void dribble(Socket from, Socket to) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment one = arena.allocate(1);
      IoVectors vectors = new IoVectors(arena, 1);
      while (from.read(one, 1) == 1) {
        vectors.clear();
        vectors.add(one);
        to.writeFully(vectors);
      }
    }
  }

  private static void roundTrip(Socket source, Socket destination, long size, int rounds)
      throws Exception {
    SplittableRandom random = Seed.random();
    byte[] registers = new byte[100_000];
    byte[] loaded = new byte[registers.length];
    try (GuestMemory a = new GuestMemory("pc.ram", size);
        GuestMemory b = new GuestMemory("vga.vram", 1);
        GuestMemory aThere = new GuestMemory("pc.ram", size);
        GuestMemory bThere = new GuestMemory("vga.vram", 1)) {
      for (long page = 0; page < size; page++) {
        // What was there before must not shine through where the source has zeros.
        aThere.fillPage(page, 7);
        a.randomize(random, page);
      }
      SectionHandler handler =
          new SectionHandler(
              "cpu",
              3,
              1,
              input -> {
                assertEquals(0xfe, input.be8());
                assertEquals(0xfedc, input.be16());
                assertEquals(0xfedcba98, input.be32());
                assertEquals(0xfedcba9876543210L, input.be64());
                input.bytes(loaded);
                input.skip(5);
              });
      StreamReader reader =
          new StreamReader(
              destination, "none", List.of(bThere.block, aThere.block), List.of(handler));
      FutureTask<Void> load =
          Connection.inBackground(
              () -> {
                reader.loadUntilHandover();
                return null;
              });

      StreamWriter writer = new StreamWriter(source, UNLIMITED);
      writer.begin("none");
      writer.startRam(List.of(a.block, b.block));
      writer.beginRound();
      writer.pages(a.block, 0, size);
      writer.pages(b.block, 0, 1);
      writer.endRound();
      for (int round = 1; round < rounds; round++) {
        writer.beginRound();
        for (int i = 0; i < 50; i++) {
          long first = random.nextLong(size);
          long count = random.nextLong(Math.min(10, size - first) + 1);
          for (long page = first; page < first + count; page++) {
            a.randomize(random, page);
          }
          writer.pages(a.block, first, count);
          b.randomize(random, 0);
          writer.pages(b.block, 0, 1);
        }
        writer.endRound();
      }
      writer.endRam();
      for (int i = 0; i < registers.length; i++) {
        registers[i] = (byte) random.nextInt();
      }
      writer.full(
          "cpu",
          3,
          1,
          output -> {
            output.be8(0xfe);
            output.be16(0xfedc);
            output.be32(0xfedcba98);
            output.be64(0xfedcba9876543210L);
            output.bytes(registers);
            output.bytes(new byte[5]);
          });
      assertEquals(false, writer.saidGo());
      writer.eof();
      assertTrue(writer.saidGo());

      load.get();
      GuestMemory.assertSame(a, aThere);
      GuestMemory.assertSame(b, bThere);
      assertArrayEquals(registers, loaded);
      assertEquals(writer.bytesWritten(), reader.bytesRead());
      assertEquals(writer.pagesWritten(), reader.pagesRead());
      assertEquals(writer.zeroPagesWritten(), reader.zeroPagesRead());
      assertTrue(writer.pagesWritten() > 0);
      assertTrue(writer.zeroPagesWritten() > 0);
      writer.description("{\"a\": 1}");
      assertEquals(Optional.of("{\"a\": 1}"), reader.description());
    }
  }

  @Test
  void hundredsOfPagesGoOutInOneCall() throws Exception {
    try (GuestMemory memory = new GuestMemory("ram", 5000)) {
      for (long page = 0; page < 5000; page++) {
        memory.fillPage(page, 1);
      }
      byte[] stream =
          Connection.capture(
              socket -> {
                StreamWriter writer = new StreamWriter(socket, UNLIMITED);
                writer.begin("none");
                writer.startRam(List.of(memory.block));
                writer.beginRound();
                writer.pages(memory.block, 0, 5000);
                writer.endRound();
                // A blocking socket takes all of a batch at once, but a signal may cut one.
                assertTrue(writer.writeCalls() < 20, writer.writeCalls() + " calls");
              });
      assertTrue(stream.length > 5000 * Pages.SIZE);
    }
  }

  /** Zero pages in long runs, cut by other pages, by another block, by a page that comes again. */
  @Test
  void runsOfZeroPagesClearWhatTheyNameAndNothingElse() throws Exception {
    int size = 700;
    try (Connection connection = Connection.open();
        GuestMemory a = new GuestMemory("a", size);
        GuestMemory b = new GuestMemory("b", size);
        GuestMemory aThere = new GuestMemory("a", size);
        GuestMemory bThere = new GuestMemory("b", size)) {
      for (long page = 0; page < size; page++) {
        aThere.fillPage(page, 7);
        bThere.fillPage(page, 7);
      }
      StreamReader reader =
          new StreamReader(
              connection.far(), "none", List.of(aThere.block, bThere.block), List.of());
      FutureTask<Void> load =
          Connection.inBackground(
              () -> {
                reader.loadUntilHandover();
                return null;
              });
      StreamWriter writer = new StreamWriter(connection.near(), UNLIMITED);
      writer.begin("none");
      writer.startRam(List.of(a.block, b.block));
      writer.beginRound();
      writer.pages(a.block, 0, 650);
      writer.pages(b.block, 650, 2);
      writer.pages(a.block, 660, 3);
      writer.pages(a.block, 665, 3);
      writer.pages(a.block, 667, 1);
      a.fillPage(666, 1);
      a.fillPage(20, 2);
      writer.pages(a.block, 666, 2);
      writer.pages(a.block, 20, 1);
      writer.endRound();
      writer.endRam();
      writer.eof();
      load.get();
      for (long page = 0; page < size; page++) {
        boolean sent = page < 650 || page >= 660 && page < 663 || page >= 665 && page < 668;
        if (!sent) {
          a.fillPage(page, 7);
        }
        if (page < 650 || page > 651) {
          b.fillPage(page, 7);
        }
      }
      GuestMemory.assertSame(a, aThere);
      GuestMemory.assertSame(b, bThere);
    }
  }

  @Test
  void pagesAreOnlyTakenFromListedBlocksInsideARound() {
    try (Connection connection = Connection.open();
        GuestMemory memory = new GuestMemory("ram", 10);
        GuestMemory other = new GuestMemory("other", 10)) {
      StreamWriter writer = new StreamWriter(connection.near(), UNLIMITED);
      writer.begin("none");
      writer.startRam(List.of(memory.block));
      assertThrows(IllegalStateException.class, () -> writer.pages(memory.block, 0, 1));
      writer.beginRound();
      assertThrows(IndexOutOfBoundsException.class, () -> writer.pages(memory.block, 9, 2));
      assertThrows(IndexOutOfBoundsException.class, () -> writer.pages(memory.block, -1, 2));
      assertThrows(
          IndexOutOfBoundsException.class, () -> writer.pages(memory.block, 1, Long.MAX_VALUE));
      assertThrows(IllegalArgumentException.class, () -> writer.pages(other.block, 0, 1));
    }
  }
}
