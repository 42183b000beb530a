package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.tidemark.engine.ChildJvm;
import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.StreamWriter;
import dev.tidemark.engine.stream.Throttle;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Rounds leave nothing for the garbage collector but what the JDK makes in each call of the kernel.
 *
 * <p>In a JVM that only interprets: a compiler can take objects away that the interpreter makes,
 * and adds none, so that what holds there holds however much is compiled. Vectors are the
 * exception, as they are objects until compiled, and are forbidden here; when they are used is what
 * the tests of the bitmap operations are about.
 */
class SteadyStateTest {
  private static final long PAGES = 8192;

  /** Code is linked when it is reached for the first time, which makes objects once. */
  private static final int ROUNDS_IN_A_ROW = 10;

  private static final int ROUNDS = 100;
  private static final int PER_CALL = 40;

  @Test
  @Timeout(300)
  void aSyncHarvestIterationAndSendAllocateNothingOfTheirOwn() throws Exception {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    List<String> options =
        List.of("-Xint", "-Dtidemark.vector=forbid", "--enable-native-access=ALL-UNNAMED");
    ChildJvm child = ChildJvm.run(options, Rounds.class);
    assertEquals(0, child.status(), child.output());
    assertTrue(child.output().contains("nothing but calls: true"), child.output());
  }

  static final class Rounds {
    public static void main(String[] args) throws Exception {
      List<String> rounds = new ArrayList<>();
      boolean frugal = inARow(rounds);
      System.out.println(String.join("\n", rounds));
      System.out.println("nothing but calls: " + frugal);
    }
  }

  /** Whether so many rounds in a row allocated no more than their calls may. */
  private static boolean inARow(List<String> rounds) throws InterruptedException {
    try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket out = Socket.connect(listener.localAddress());
        Socket in = listener.accept();
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      Thread drain = Thread.ofPlatform().daemon().start(() -> drain(in));
      tracker.add(new PagemapScanSource(tracker.logs()));
      tracker.start();
      StreamWriter writer = new StreamWriter(out, new Throttle(0));
      writer.begin("test");
      writer.startRam(List.of(tracker.logs().getFirst().block()));
      ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
      int row = 0;
      for (int round = 0; round < ROUNDS && row < ROUNDS_IN_A_ROW; round++) {
        // Every third page, so that a round has many runs and page content of both kinds.
        for (long page = round % 3; page < PAGES; page += 3) {
          memory.segment().set(ValueLayout.JAVA_LONG, page * Pages.SIZE, round % 4);
        }
        tracker.logs().getFirst().mark(round % 100, 3);
        long calls = calls(tracker, writer);
        long before = threads.getCurrentThreadAllocatedBytes();
        long sent = round(tracker, writer);
        long bytes = threads.getCurrentThreadAllocatedBytes() - before;
        calls = calls(tracker, writer) - calls;
        if (sent < PAGES / 3 || calls < 2) {
          throw new IllegalStateException("a round without work shows nothing");
        }
        rounds.add(bytes + " bytes in " + calls + " calls");
        row = bytes <= calls * PER_CALL ? row + 1 : 0;
      }
      out.shutdown();
      drain.join();
      return row == ROUNDS_IN_A_ROW;
    }
  }

  private static long calls(DirtyTracker tracker, StreamWriter writer) {
    return tracker.logs().getFirst().counters().queries() + writer.writeCalls();
  }

  private static long round(DirtyTracker tracker, StreamWriter writer) {
    tracker.sync();
    long pages = tracker.harvest();
    List<RamBlockLog> logs = tracker.logs();
    writer.beginRound();
    for (int i = 0; i < logs.size(); i++) {
      RunCursor runs = logs.get(i).epoch().runs();
      for (int found = runs.batch(); found > 0; found = runs.batch()) {
        for (int run = 0; run < found; run++) {
          writer.pages(logs.get(i).block(), runs.start(run), runs.length(run));
        }
      }
    }
    writer.endRound();
    tracker.commit();
    return pages;
  }

  private static void drain(Socket in) {
    try (Mapping buffer = Mapping.anonymous(1 << 20)) {
      MemorySegment segment = buffer.segment();
      while (in.read(segment, segment.byteSize()) > 0) {
        // Only to make room.
      }
    } catch (LinuxException e) {
      // The writer ended the connection.
    }
  }
}
