package dev.tidemark.bench.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.bench.lab.FaultyClasses;
import dev.tidemark.bench.lab.FaultyClasses.Patch;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Signals and profilers in whatever the sources ask of the kernel: {@link SignalStorm} in a JVM of
 * its own. {@code -Dtidemark.effort=N} makes it N times as many rounds.
 */
@Timeout(600)
class SignalStormTest {
  private static final int EFFORT = Integer.getInteger("tidemark.effort", 1);
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());
  private static final int ROUNDS = 100;

  /** Seen to lose a page in each of its first few rounds; so many chances, once. */
  private static final int CHANCES = 1000;

  /**
   * The JVM's sampler stops threads by signals every few milliseconds, and its CPU-time sampler
   * sends each thread one as often.
   */
  private static final String RECORDING =
      "-XX:StartFlightRecording:settings=profile,jdk.ExecutionSample#period=1ms,"
          + "jdk.NativeMethodSample#period=1ms,jdk.CPUTimeSample#enabled=true,"
          + "jdk.CPUTimeSample#throttle=1ms,filename=";

  private static void assume(String source) {
    Optional<String> missing =
        source.equals("process")
            ? Userfaultfd.probe()
                .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
                .or(Pagemap::missing)
            : Kvm.missing();
    assumeTrue(missing.isEmpty(), () -> missing.orElseThrow());
  }

  private record Ended(int status, String output) {}

  private static Ended run(Path folder, String options, String source, boolean signals, int rounds)
      throws Exception {
    Path root = Path.of(System.getProperty("tidemark.root"));
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.add("@" + root.resolve("jdk-flags.txt"));
    if (!options.isEmpty()) {
      command.add(options);
    }
    command.addAll(
        List.of(
            "-cp",
            folder + ":" + System.getProperty("java.class.path"),
            SignalStorm.class.getName(),
            source,
            signals ? "yes" : "no",
            Integer.toString(rounds),
            Long.toString(SEED)));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    try {
      // To the end of its output: the test's own time limit ends a program that hangs.
      String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      return new Ended(process.waitFor(), output);
    } finally {
      process.destroyForcibly();
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"ring", "plain", "manual", "process"})
  void underAStormOfSignalsNoPageIsLost(String source, @TempDir Path folder) throws Exception {
    assume(source);
    Ended ended = run(folder, "", source, true, ROUNDS * EFFORT);
    assertEquals(0, ended.status, "-Dtidemark.seed=" + SEED + ": " + ended.output);
    assertTrue(ended.output.contains("failures 0"), ended.output);
    System.out.println(source + ", signals: " + ended.output.lines().toList().getLast());
  }

  @Test
  void underAProfilerNoPageIsLost(@TempDir Path folder) throws Exception {
    assume("ring");
    Path recording = folder.resolve("recording.jfr");
    Ended ended = run(folder, RECORDING + recording, "ring", false, ROUNDS * EFFORT);
    assertEquals(0, ended.status, "-Dtidemark.seed=" + SEED + ": " + ended.output);
    assertTrue(ended.output.contains("failures 0"), ended.output);
    System.out.println("ring, profiler: " + ended.output.lines().toList().getLast());
  }

  /** Who believes the count alone, as up to Linux 6.16 one could, loses pages. */
  @Test
  void aRingWhoseCountIsTrustedIsNoticed(@TempDir Path folder) throws Exception {
    assume("ring");
    assumeTrue(kernel() >= 617, "before Linux 6.17 a reset is not interrupted: " + kernel());
    String kvm = "ffm-bindings/src/main/java/dev/tidemark/ffm/kvm/KvmVm.java";
    FaultyClasses.compile(
        List.of(
            new Patch(
                kvm,
                "SIG_BLOCK, BLOCKED.address(), signals.address()",
                "SIG_BLOCK, 0, signals.address()"),
            new Patch(
                "engine/src/main/java/dev/tidemark/engine/source/KvmDirtyRingSource.java",
                "boolean all = reset.reset(harvested);",
                "boolean all = reset.reset(harvested) | true;")),
        folder);
    Ended ended = run(folder, "", "ring", true, CHANCES);
    assertEquals(1, ended.status, "the fault went unnoticed: " + ended.output);
    assertTrue(ended.output.contains("lost: page"), ended.output);
  }

  private static int kernel() {
    String[] parts = System.getProperty("os.version").split("[.-]");
    return Integer.parseInt(parts[0]) * 100 + Integer.parseInt(parts[1]);
  }
}
