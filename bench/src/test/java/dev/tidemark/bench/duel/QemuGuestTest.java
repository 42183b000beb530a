package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.guest.BootImage;
import dev.tidemark.bench.qemu.TestQemus;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The guest that QEMU boots. */
@Timeout(180)
class QemuGuestTest {
  private static final long RAM = 16 << 20;
  private static final long PAGE = 4096;

  /** The first 4 MiB are no test pages. */
  private static final long TEST_PAGES = (RAM - (4 << 20)) / PAGE;

  private static final double TICKS_PER_SECOND = 1e9;

  private static QemuGuest start(Path folder, long rate, String... more) throws Exception {
    Path image = folder.resolve("guest.img");
    Files.write(image, BootImage.of(RAM, rate, TICKS_PER_SECOND));
    return new QemuGuest(TestQemus.newest().path(), folder, image, "guest", RAM, more);
  }

  private static GuestStatus awaitGeneration(QemuGuest guest, long generation) throws Exception {
    long deadline = System.nanoTime() + TimeUnit.MINUTES.toNanos(2);
    GuestStatus status;
    do {
      Thread.sleep(5);
      status = guest.status();
      assertTrue(System.nanoTime() - deadline < 0, status.toString());
    } while (status.generation() < generation);
    return status;
  }

  @Test
  void comesThroughItsMemoryAgainAndAgainAndFindsItRight(@TempDir Path folder) throws Exception {
    try (QemuGuest guest = start(folder, 0)) {
      GuestStatus status = awaitGeneration(guest, 40);
      assertTrue(status.pages() >= 39 * TEST_PAGES - 64, status.toString());
    }
  }

  @Test
  void noticesAPageThatIsNotWhatItWrote(@TempDir Path folder) throws Exception {
    Path ram = folder.resolve("ram");
    String object = "memory-backend-file,id=ram,share=on,size=16M,mem-path=" + ram;
    try (QemuGuest guest = start(folder, 0, "-object", object, "-machine", "memory-backend=ram")) {
      awaitGeneration(guest, 3);
      try (FileChannel file = FileChannel.open(ram, StandardOpenOption.WRITE)) {
        // Its first word, again and again: it may be about to write it.
        long page = RAM - 5 * PAGE;
        IllegalStateException found =
            assertThrows(
                IllegalStateException.class,
                () -> {
                  while (true) {
                    file.write(ByteBuffer.allocate(8).putLong(0, 77), page);
                    guest.status();
                  }
                });
        assertTrue(found.getMessage().contains("badPage=" + page), found.getMessage());
      }
    }
  }

  @Test
  void keepsItsPaceByItsClockAndKnowsItsStalls(@TempDir Path folder) throws Exception {
    long rate = 50_000;
    try (QemuGuest guest = start(folder, rate)) {
      guest.awaitFilled();
      GuestStatus first = guest.status();
      GuestStatus last;
      do {
        Thread.sleep(5);
        last = guest.status();
      } while (last.pages() - first.pages() < rate / 4);
      // It may be late, but never ahead: by a batch, for one that was under way, and by the 20 ms
      // that it makes up for.
      double most = rate * ((last.ticks() - first.ticks()) / TICKS_PER_SECOND + 0.02) + 64;
      assertTrue(last.pages() - first.pages() <= most, first + " to " + last);
      guest.qemu().execute("stop");
      GuestStatus stopped = guest.status();
      long stall = guest.longestStall(first.ticks(), stopped.ticks());
      assertTrue(stall > 0 && stall < stopped.ticks(), stall + " at " + stopped);
      long never = stopped.ticks() + ((long) BootImage.WINDOWS << BootImage.WINDOW_SHIFT);
      assertEquals(-1, guest.longestStall(first.ticks(), never));
    }
  }
}
