package dev.tidemark.engine.bitmap;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.tidemark.engine.ChildJvm;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import java.io.IOException;
import java.io.InputStream;
import java.lang.classfile.ClassFile;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/** The gate, in whichever of the three runs of the suite this is. */
class BitmapsTest {
  /** What the run expects, set by the build: vector, forbidden or no-module. */
  private static final String RUN = System.getProperty("tidemark.test.run", "vector");

  @Test
  void vectorsAreUsedWhereTheyCanBe() throws IOException {
    assumeTrue(RUN.equals("vector"), "this run is without vectors: " + RUN);
    assumeTrue(cpuHasWideVectors(), "this machine has no vectors of 256 bit: scalar it is");
    assertTrue(Bitmaps.description().matches("vector, (256|512) bit"), Bitmaps.description());
    assertSame(Bitmaps.vector().orElseThrow(), Bitmaps.ops());
  }

  @Test
  void vectorsCanBeForbidden() {
    assumeTrue(RUN.equals("forbidden"), "this run does not forbid vectors: " + RUN);
    assertEquals("scalar: tidemark.vector=forbid", Bitmaps.description());
    assertSame(Bitmaps.scalar(), Bitmaps.ops());
  }

  @Test
  void withoutTheIncubatorModuleTheReasonNamesTheFlag() {
    assumeTrue(RUN.equals("no-module"), "this run has the incubator module: " + RUN);
    assertTrue(
        Bitmaps.description()
            .startsWith("scalar: no module jdk.incubator.vector: add --add-modules="),
        Bitmaps.description());
    assertSame(Bitmaps.scalar(), Bitmaps.ops());
    assertTrue(Bitmaps.vector().isEmpty());
  }

  @Test
  void theChoiceIsOneLineInTheLog() throws Exception {
    ChildJvm child = run(List.of(ChildJvm.FLAGS, "-Dtidemark.vector=forbid"));
    assertEquals(0, child.status(), child.output());
    assertEquals(
        1,
        child
            .output()
            .lines()
            .filter(line -> line.contains("bitmap operations: scalar: tidemark.vector=forbid"))
            .count(),
        child.output());
  }

  @Test
  void requiringVectorsTurnsAFallbackIntoAnError() throws Exception {
    ChildJvm child = run(List.of("-Dtidemark.vector=require"));
    assertEquals(1, child.status(), child.output());
    assertTrue(
        child
            .output()
            .contains("tidemark.vector=require, but bitmap operations are scalar: no module"),
        child.output());
  }

  @Test
  void theInterpreterAndTheFirstCompilerAloneGetTheScalarTwin() throws Exception {
    String flags = ChildJvm.FLAGS;
    for (String mode : List.of("-Xint", "-XX:TieredStopAtLevel=1", "-XX:TieredStopAtLevel=3")) {
      ChildJvm child = run(List.of(flags, mode));
      assertEquals(0, child.status(), child.output());
      assertTrue(child.output().contains("scalar: the JVM has no C2 compiler"), child.output());
    }
  }

  @Test
  void narrowVectorsAreNotUsed() throws Exception {
    String flags = ChildJvm.FLAGS;
    ChildJvm child = run(List.of(flags, "-XX:MaxVectorSize=16"));
    assertEquals(0, child.status(), child.output());
    assertTrue(child.output().contains("scalar: vectors of 128 bit are no faster"), child.output());
  }

  @Test
  void aWordThatIsNoModeIsAReasonForScalar() throws Exception {
    ChildJvm child = run(List.of("-Dtidemark.vector=yes"));
    assertEquals(0, child.status(), child.output());
    assertTrue(child.output().contains("scalar: tidemark.vector=yes is none of"), child.output());
  }

  @Test
  void warmUpComparesTheCompiledCode() {
    assertTrue(Bitmaps.warmUp() > 0);
  }

  @Test
  void theFirstHarvestsAfterTheWarmUpMakeNoGarbage() throws Exception {
    assertMakesNoGarbage(FirstHarvests.class, 8);
  }

  @Test
  void theFirstMergesAfterTheWarmUpMakeNoGarbage() throws Exception {
    assertMakesNoGarbage(FirstMerges.class, 3);
  }

  @Test
  void theFirstPagesAfterTheirWarmUpMakeNoGarbage() throws Exception {
    assertMakesNoGarbage(FirstPages.class, 3);
  }

  @Test
  void theFlagsNameMethodsThatThereAre() throws Exception {
    // The JVM ignores a command for a method that it does not find.
    String command = "-XX:CompileCommand=dontinline,";
    Path flags = Path.of(System.getProperty("tidemark.root"), "jdk-flags.txt");
    List<String> named =
        Files.readAllLines(flags).stream()
            .filter(line -> line.startsWith(command))
            .map(line -> line.substring(command.length()))
            .toList();
    assertFalse(named.isEmpty(), "no command found in " + flags);
    for (String method : named) {
      String[] parts = method.split("::");
      // Read, not loaded, as one of the runs has no vectors.
      try (InputStream type =
          Bitmaps.class.getResourceAsStream("/" + parts[0].replace('.', '/') + ".class")) {
        assertNotNull(type, method);
        assertTrue(
            ClassFile.of().parse(type.readAllBytes()).methods().stream()
                .anyMatch(m -> m.methodName().equalsString(parts[1])),
            method);
      }
    }
  }

  private static void assertMakesNoGarbage(Class<?> program, int lines) throws Exception {
    String seed = "-Dtidemark.seed=" + Long.getLong("tidemark.seed", System.nanoTime());
    // Calls wait for their compilation: how busy the machine is decides nothing then.
    ChildJvm child = ChildJvm.run(List.of(ChildJvm.FLAGS, "-Xbatch", seed), program);
    assertEquals(0, child.status(), child.output());
    long[] bytes =
        child
            .output()
            .lines()
            .filter(line -> line.startsWith("bytes: "))
            .mapToLong(line -> Long.parseLong(line.substring(7)))
            .toArray();
    assertEquals(lines, bytes.length, child.output());
    for (long some : bytes) {
      // A harvest or merge whose vectors are objects makes 80 KB and more.
      assertTrue(some < 50_000, child.output());
    }
  }

  @Test
  void harvestsAreComparedWhileTheyWarmUp() {
    try (HarvestWarmUp harvests = new HarvestWarmUp()) {
      CheckedBitmapOps right = new ScalarBitmapOps();
      assertTrue(harvests.run(right, right, 1_000_000_000));
      CheckedBitmapOps clearsNothing =
          new ScalarBitmapOps() {
            @Override
            void doClearLines(MemorySegment map, long words, MemorySegment lines) {}
          };
      assertFalse(harvests.run(clearsNothing, right, 1_000_000_000));
    }
  }

  @Test
  void selfTestNoticesEveryWrongKernel() {
    try (SelfTest test = SelfTest.ofFewWords()) {
      assertTrue(test.difference(new ScalarBitmapOps(), Bitmaps.scalar()).isEmpty());
      for (Method method : BitmapOps.class.getMethods()) {
        assertTrue(
            test.difference(wrongIn(method.getName()), Bitmaps.scalar()).isPresent(),
            method.getName());
      }
      CheckedBitmapOps aRunTooLong =
          new ScalarBitmapOps() {
            @Override
            int listRuns(RunScan scan, long end, int n) {
              int found = super.listRuns(scan, end, n);
              scan.ends[Math.max(0, found - 1)]++;
              return found;
            }
          };
      assertTrue(test.difference(aRunTooLong, Bitmaps.scalar()).isPresent());
    }
  }

  /** The scalar twin, but one method is wrong: in its result, or by a bit if it has none. */
  private static BitmapOps wrongIn(String name) {
    return (BitmapOps)
        Proxy.newProxyInstance(
            BitmapOps.class.getClassLoader(),
            new Class<?>[] {BitmapOps.class},
            (proxy, method, arguments) -> {
              Object result = method.invoke(Bitmaps.scalar(), arguments);
              if (!method.getName().equals(name)) {
                return result;
              }
              if (result == null) {
                MemorySegment map = (MemorySegment) arguments[0];
                map.set(JAVA_BYTE, 0, (byte) (map.get(JAVA_BYTE, 0) ^ 1));
                return null;
              }
              return result instanceof Boolean answer ? !answer : (Object) ((long) result + 1);
            });
  }

  /** Says what the gate chose, in a JVM of its own. */
  private static ChildJvm run(List<String> options) throws IOException, InterruptedException {
    return ChildJvm.run(options, Choice.class);
  }

  static final class Choice {
    public static void main(String[] args) {
      Bitmaps.ops();
      System.out.println("chosen: " + Bitmaps.description());
    }
  }

  /**
   * Warms up until that makes no garbage any more: a warm-up has a time limit, which passes before
   * the compiler is through where the machine is busy.
   */
  private static void warmUp(Runnable once) {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long allocated = Long.MAX_VALUE;
    for (int i = 0; i < 50 && allocated > 1 << 20; i++) {
      long before = threads.getCurrentThreadAllocatedBytes();
      once.run();
      allocated = threads.getCurrentThreadAllocatedBytes() - before;
    }
  }

  /** Prints what merges of all lengths allocate, of sources that are clean, full and in between. */
  static final class FirstMerges {
    public static void main(String[] args) {
      warmUp(Bitmaps::warmUp);
      ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
      BitmapOps ops = Bitmaps.ops();
      int lines = 1200;
      try (Mapping from = Mapping.guarded((lines + 1) * 64L);
          Mapping to = Mapping.guarded((lines + 1) * 64L)) {
        MemorySegment src = from.segment();
        MemorySegment dst = to.segment();
        for (int every : new int[] {lines + 1, 1, 500}) {
          long before = threads.getCurrentThreadAllocatedBytes();
          for (int n = 1; n <= lines; n++) {
            long bits = n * 512L - n % 3 * 64;
            for (int line = every - 1; line <= lines; line += every) {
              src.set(JAVA_LONG, line * 64L, -1);
            }
            ops.or(dst, 0, src, 0, bits);
            ops.or(dst, 61, src, 7, bits);
            ops.orCount(dst, 0, src, 0, bits);
            ops.orCount(dst, 64, src, 3, bits);
            ops.andNot(dst, 0, src, 0, bits);
            ops.cardinality(src, 0, bits);
            ops.orCountClear(dst, 64, src, 3, bits);
            ops.orCountClear(dst, 0, src, 0, bits);
            ops.any(src, 0, bits);
          }
          System.out.println("bytes: " + (threads.getCurrentThreadAllocatedBytes() - before));
        }
      }
    }
  }

  /** Prints what looking for zero pages allocates, where all are, none is, and most are. */
  static final class FirstPages {
    public static void main(String[] args) {
      warmUp(Bitmaps::warmUpZeroPages);
      ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
      BitmapOps ops = Bitmaps.ops();
      try (Mapping pages = Mapping.anonymous(64 * Pages.SIZE)) {
        MemorySegment memory = pages.segment();
        for (int every : new int[] {65, 1, 9}) {
          for (int page = every - 1; page < 64; page += every) {
            memory.set(JAVA_LONG, page * Pages.SIZE + page * 56L, 1);
          }
          long before = threads.getCurrentThreadAllocatedBytes();
          long zeros = 0;
          long expected = 0;
          for (int n = 0; n < 1000; n++) {
            for (int count = 1; count <= 64; count++) {
              zeros += Long.bitCount(ops.zeroPages(memory, 0, count));
              expected += count - count / every;
            }
          }
          System.out.println("bytes: " + (threads.getCurrentThreadAllocatedBytes() - before));
          memory.fill((byte) 0);
          if (zeros != expected) {
            throw new AssertionError(zeros + " zero pages, not " + expected);
          }
        }
      }
    }
  }

  /** Prints what a hundred harvests allocate, ever denser, in cache and out of it. */
  static final class FirstHarvests {
    public static void main(String[] args) {
      // Twice: on a busy machine the compiler may be late, and the first is not to wait for long.
      warmUp(Bitmaps::warmUp);
      ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
      for (int words : new int[] {1 << 16, 1 << 18}) {
        try (Mapping plane = Mapping.guarded(words * 8L);
            Mapping summary = Mapping.guarded(words / 8)) {
          MemorySegment map = plane.segment();
          RunCursor runs = new RunCursor();
          SplittableRandom random = Seed.random();
          for (int bits = 40; bits < 100_000; bits *= 10) {
            long sum = 0;
            long allocated = 0;
            for (int harvest = 0; harvest < 100; harvest++) {
              for (int i = 0; i < bits; i++) {
                ScalarBitmapOps.setRange(map, random.nextLong(words * 64L), 1);
              }
              long before = threads.getCurrentThreadAllocatedBytes();
              sum += Bitmaps.ops().summarize(map, words, summary.segment());
              runs.reset(map, summary.segment(), words * 64L);
              for (int n = runs.batch(); n > 0; n = runs.batch()) {
                sum -= runs.length(0);
              }
              Bitmaps.ops().clearLines(map, words, summary.segment());
              allocated += threads.getCurrentThreadAllocatedBytes() - before;
            }
            System.out.println("bytes: " + allocated);
            if (sum == 0) {
              throw new AssertionError("nothing was harvested");
            }
          }
        }
      }
    }
  }

  private static boolean cpuHasWideVectors() throws IOException {
    return Files.readAllLines(Path.of("/proc/cpuinfo")).stream()
        .filter(line -> line.startsWith("flags"))
        .findFirst()
        .map(line -> Set.of(line.split("\\s+")).contains("avx2"))
        .orElse(false);
  }
}
