package dev.tidemark.engine.bitmap;

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
import java.io.IOException;
import java.io.InputStream;
import java.lang.classfile.ClassFile;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
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
  void withoutTheIncubatorModuleTheReasonNamesTheFlag() throws InterruptedException {
    assumeTrue(RUN.equals("no-module"), "this run has the incubator module: " + RUN);
    assertTrue(
        Bitmaps.description()
            .startsWith("scalar: no module jdk.incubator.vector: add --add-modules="),
        Bitmaps.description());
    assertEquals(Kernel.values().length, Bitmaps.prove().size());
    assertEquals("scalar", Bitmaps.inUse());
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
  void whatIsProvenIsInUse() throws Exception {
    assumeTrue(RUN.equals("vector"), "one run is enough: " + RUN);
    assumeTrue(cpuHasWideVectors(), "this machine has no vectors of 256 bit: scalar it is");
    // Calls wait for their compilation: how busy the machine is decides nothing then.
    ChildJvm child = ChildJvm.run(List.of(ChildJvm.FLAGS, "-Xbatch"), Proof.class);
    assertEquals(0, child.status(), child.output());
    assertTrue(child.output().contains("at first: scalar\n"), child.output());
    assertTrue(child.output().contains("proven: [] in use: vector\n"), child.output());
  }

  @Test
  void theFirstHarvestsAfterTheProofMakeLittleGarbage() throws Exception {
    assertMakesLittleGarbage(FirstHarvests.class, 12);
  }

  @Test
  void theFirstMergesAfterTheProofMakeLittleGarbage() throws Exception {
    assertMakesLittleGarbage(FirstMerges.class, 3);
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

  private static void assertMakesLittleGarbage(Class<?> program, int lines) throws Exception {
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
      // A harvest or merge whose vectors are objects makes 80 KB and more, and there are a hundred:
      // some are made where an input of a new kind deoptimizes a kernel, and they are soon over.
      assertTrue(some < 1_000_000, child.output());
    }
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

  static final class Proof {
    public static void main(String[] args) throws InterruptedException {
      System.out.println("at first: " + Bitmaps.inUse());
      System.out.println("proven: " + Bitmaps.prove() + " in use: " + Bitmaps.inUse());
    }
  }

  /** Prints what merges of all lengths allocate, of sources that are clean, full and in between. */
  static final class FirstMerges {
    public static void main(String[] args) throws InterruptedException {
      Bitmaps.prove();
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

  /** Prints what harvests allocate, ever denser, in cache, out of it, and by two threads. */
  static final class FirstHarvests {
    public static void main(String[] args) throws InterruptedException {
      Bitmaps.prove();
      ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
      for (int words : new int[] {1 << 16, 1 << 18, 1 << 21}) {
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
