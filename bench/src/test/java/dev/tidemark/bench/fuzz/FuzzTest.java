package dev.tidemark.bench.fuzz;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.cli.CommandLineTarget;
import dev.tidemark.bench.hot.OtherJvm;
import dev.tidemark.engine.device.VfioStateTarget;
import dev.tidemark.ffm.vfio.CapabilitiesTarget;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Whatever others may send, for some time, from the seeds in {@code bench/src/test/fuzz} on. With
 * {@code -Dtidemark.fuzz.runs=10000000} so many runs instead.
 */
@Timeout(24 * 3600)
class FuzzTest {
  private static final int SECONDS = 20 * Integer.getInteger("tidemark.effort", 1);
  private static final long RUNS = Long.getLong("tidemark.fuzz.runs", 0);
  private static final Pattern DONE = Pattern.compile("Done (\\d+) runs in (\\d+) second");
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime()) & 0x7fff_ffff;

  @ParameterizedTest
  @ValueSource(
      classes = {
        StreamReaderTarget.class,
        ReturnPathTarget.class,
        VfioStateTarget.class,
        CapabilitiesTarget.class,
        CommandLineTarget.class
      })
  void nothingIsFound(Class<?> target, @TempDir Path folder) throws Exception {
    Path seeds =
        Path.of(System.getProperty("tidemark.root"))
            .resolve("bench/src/test/fuzz/" + target.getSimpleName());
    Path finds = Files.createDirectory(folder.resolve("finds"));
    List<String> arguments =
        new ArrayList<>(
            List.of(
                "--target_class=" + target.getName(),
                "--instrumentation_includes=dev.tidemark.**",
                "--reproducer_path=" + folder,
                "-artifact_prefix=" + folder + "/",
                "-seed=" + SEED,
                "-max_len=20000",
                "-timeout=120",
                "-rss_limit_mb=4096",
                RUNS > 0 ? "-runs=" + RUNS : "-max_total_time=" + SECONDS,
                finds.toString(),
                seeds.toString()));
    Process jazzer =
        OtherJvm.command(
                List.of("-Xmx512m"),
                Class.forName("com.code_intelligence.jazzer.Jazzer"),
                arguments.toArray(String[]::new))
            .redirectErrorStream(true)
            .start();
    String output = new String(jazzer.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    String told = "-Dtidemark.seed=" + SEED + "\n" + output + crashes(folder);
    assertEquals(0, jazzer.waitFor(), told);
    Matcher done = DONE.matcher(output);
    assertTrue(done.find(), told);
    System.out.println(
        target.getSimpleName() + ": " + done.group(1) + " runs in " + done.group(2) + " s");
    long given;
    try (Stream<Path> files = Files.list(seeds)) {
      given = files.count();
    }
    assertTrue(Long.parseLong(done.group(1)) > given, told);
  }

  /** Inputs that failed, in hexadecimal: the test's folder goes. */
  private static String crashes(Path folder) throws IOException {
    StringBuilder text = new StringBuilder();
    try (Stream<Path> files = Files.list(folder)) {
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        byte[] bytes = Files.readAllBytes(file);
        text.append(file.getFileName())
            .append(": ")
            .append(HexFormat.of().formatHex(Arrays.copyOf(bytes, Math.min(bytes.length, 20_000))))
            .append('\n');
      }
    }
    return text.toString();
  }
}
