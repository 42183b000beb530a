package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.tidemark.engine.ChildJvm;
import dev.tidemark.engine.bitmap.Bitmaps;
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
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Rounds of a 1 GiB block, after warm-up, leave nothing for the garbage collector. */
class SteadyStateTest {
  private static final long PAGES = (1L << 30) / Pages.SIZE;

  /** Enough calls of everything for the compiler: its threshold counts calls, not bytes. */
  private static final long WARM_UP_PAGES = 2048;

  private static final int WARM_UP_ROUNDS = 4000;

  /** When the compiler comes to the last call site is its own affair; it has so many rounds. */
  private static final int ROUNDS = 40;

  private static final int ROUNDS_IN_A_ROW = 4;

  /** In a JVM of its own: how calls are inlined here depends on what other tests have called. */
  @Test
  @Timeout(300)
  void aSyncHarvestIterationAndSendAllocateNothing() throws Exception {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    // Calls wait for their compilation: how busy the machine is decides nothing then.
    List<String> options = new ArrayList<>(List.of("-Xbatch"));
    if (ModuleLayer.boot().findModule("jdk.incubator.vector").isPresent()) {
      options.add(ChildJvm.FLAGS);
    } else {
      options.add("--enable-native-access=ALL-UNNAMED");
    }
    if (System.getProperty("tidemark.vector") != null) {
      options.add("-Dtidemark.vector=" + System.getProperty("tidemark.vector"));
    }
    ChildJvm child = ChildJvm.run(options, Rounds.class);
    assertEquals(0, child.status(), child.output());
    assertTrue(child.output().contains("allocated nothing: true"), child.output());
  }

  static final class Rounds {
    public static void main(String[] args) throws Exception {
      Bitmaps.warmUp();
      allocatedInRounds(WARM_UP_PAGES, WARM_UP_ROUNDS);
      long[] allocated = allocatedInRounds(PAGES, ROUNDS);
      System.out.println("bytes allocated in each round: " + Arrays.toString(allocated));
      System.out.println("allocated nothing: " + endsInZeros(allocated));
    }
  }

  private static boolean endsInZeros(long[] allocated) {
    return allocated.length >= ROUNDS_IN_A_ROW
        && Arrays.stream(allocated, allocated.length - ROUNDS_IN_A_ROW, allocated.length)
            .allMatch(bytes -> bytes == 0);
  }

  /** Runs rounds until a few in a row allocated nothing, or there were enough. */
  private static long[] allocatedInRounds(long pages, int most) throws InterruptedException {
    try (Mapping memory = Mapping.anonymous(pages * Pages.SIZE);
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
      long[] allocated = {};
      for (int round = 0; round < most && !endsInZeros(allocated); round++) {
        // Every third page, so that a round has many runs and page content of both kinds.
        for (long page = round % 3; page < pages; page += 3) {
          memory.segment().set(ValueLayout.JAVA_LONG, page * Pages.SIZE, round % 4);
        }
        tracker.logs().getFirst().mark(round % 100, 3);
        long before = threads.getCurrentThreadAllocatedBytes();
        long sent = round(tracker, writer);
        long bytes = threads.getCurrentThreadAllocatedBytes() - before;
        allocated = Arrays.copyOf(allocated, round + 1);
        allocated[round] = bytes;
        if (sent < pages / 3) {
          throw new IllegalStateException("a round without work shows nothing");
        }
      }
      out.shutdown();
      drain.join();
      return allocated;
    }
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
