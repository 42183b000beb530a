package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.management.ThreadMXBean;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The JVM's own count of what a thread allocated: no more than the 40 bytes that the JDK makes in a
 * call of the kernel, which is far from an object a page, a run or a round.
 */
@Timeout(300)
class StreamAllocationTest {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
  private static final long PAGES = 4096;
  private static final int PINGS = 100;

  /** Rounds of 36 MiB of pages: a window moves more than 1 GiB. */
  private static final int ROUNDS = 30;

  private static final int WINDOWS = 20;
  private static final int PER_CALL = 40;

  /** poll and read for the head, and again for the rest. */
  private static final int CALLS_PER_PONG = 4;

  private static final int PATIENCE = 200_000;

  @Test
  void sendingAndLoadingAllocateNothingOfTheirOwn() throws Exception {
    List<String> windows = new ArrayList<>();
    try (Connection connection = Connection.open();
        GuestMemory a = new GuestMemory("a", PAGES);
        GuestMemory b = new GuestMemory("b", PAGES);
        GuestMemory aThere = new GuestMemory("a", PAGES);
        GuestMemory bThere = new GuestMemory("b", PAGES)) {
      for (long page = 0; page < PAGES; page += 3) {
        a.fillPage(page, (int) page | 1);
        b.fillPage(page, (int) page | 1);
      }
      StreamReader reader =
          new StreamReader(
              connection.far(), "none", List.of(aThere.block, bThere.block), List.of());
      AtomicLong loader = new AtomicLong();
      FutureTask<Void> load =
          Connection.inBackground(
              () -> {
                loader.set(Thread.currentThread().threadId());
                reader.loadUntilHandover();
                return null;
              });
      StreamWriter writer = new StreamWriter(connection.near(), new Throttle(1L << 60));
      ReturnPath answers = new ReturnPath(connection.near());
      writer.begin("none");
      writer.openReturnPath();
      writer.startRam(List.of(a.block, b.block));
      for (int i = 0; i < PINGS; i++) {
        writer.ping(i);
        answers.awaitPong(i, PATIENCE);
      }
      long self = Thread.currentThread().threadId();
      int round = PINGS;
      // Code is linked when it is reached for the first time, which makes objects once.
      boolean frugal = false;
      for (int window = 0; window < WINDOWS && !frugal; window++) {
        long calls = writer.writeCalls();
        long sent = THREADS.getThreadAllocatedBytes(self);
        long loaded = THREADS.getThreadAllocatedBytes(loader.get());
        for (int end = round + ROUNDS; round < end; round++) {
          writer.beginRound();
          writer.pages(a.block, 0, PAGES);
          for (long page = 0; page < PAGES; page += 8) {
            writer.pages(a.block, page, 2);
            writer.pages(b.block, page, 8);
          }
          writer.endRound();
          writer.ping(round);
          answers.awaitPong(round, PATIENCE);
        }
        sent = THREADS.getThreadAllocatedBytes(self) - sent;
        loaded = THREADS.getThreadAllocatedBytes(loader.get()) - loaded;
        calls = writer.writeCalls() - calls + ROUNDS * CALLS_PER_PONG;
        windows.add(sent + " sending in " + calls + " calls and " + loaded + " loading");
        frugal = sent <= calls * PER_CALL && loaded < ROUNDS * PAGES * 2 * 4;
      }
      writer.endRam();
      writer.eof();
      load.get();
      GuestMemory.assertSame(a, aThere);
      GuestMemory.assertSame(b, bThere);
      assertTrue(frugal, "bytes, for less than 4 a page loaded: " + windows);
    }
  }
}
