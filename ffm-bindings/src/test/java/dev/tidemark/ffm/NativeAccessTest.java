package dev.tidemark.ffm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class NativeAccessTest {
  private static final String CLASSES =
      String.join(File.separator, System.getProperty("tidemark.root"), "ffm-bindings", "target");

  /** What a process of its own prints. */
  static final class Main {
    public static void main(String[] args) {
      System.out.println(NativeAccess.missing().orElseGet(() -> "granted, page of " + Pages.SIZE));
    }
  }

  private static String java(String... arguments) throws Exception {
    List<String> command =
        new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", "-Xshare:auto"));
    Collections.addAll(command, arguments);
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output =
        new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8).strip();
    assertEquals(0, process.waitFor(), output);
    return output;
  }

  private static String[] onClassPath(String... flags) {
    return join(flags, "-cp", CLASSES + "/classes:" + CLASSES + "/test-classes", main());
  }

  private static String[] onModulePath(String... flags) {
    return join(
        flags,
        "-p",
        CLASSES + "/classes",
        "--patch-module",
        "dev.tidemark.ffm=" + CLASSES + "/test-classes",
        "-m",
        "dev.tidemark.ffm/" + main());
  }

  private static String main() {
    return Main.class.getName();
  }

  private static String[] join(String[] flags, String... rest) {
    List<String> all = new ArrayList<>(List.of(flags));
    Collections.addAll(all, rest);
    return all.toArray(String[]::new);
  }

  @Test
  void theseTestsHaveIt() {
    assertEquals(Optional.empty(), NativeAccess.missing());
  }

  /** Else a restricted call from where nobody expects one would be a warning that nobody reads. */
  @Test
  void theseTestsDenyItToAllThatWereNotGrantedIt() throws ReflectiveOperationException {
    Class<?> bean = Class.forName("java.lang.management.RuntimeMXBean");
    Object runtime =
        Class.forName("java.lang.management.ManagementFactory")
            .getMethod("getRuntimeMXBean")
            .invoke(null);
    List<?> arguments = (List<?>) bean.getMethod("getInputArguments").invoke(runtime);
    assertTrue(arguments.contains("--illegal-native-access=deny"), arguments::toString);
  }

  @Test
  void whereItIsMissingTheFlagIsNamed() throws Exception {
    String rest = " (or start with @jdk-flags.txt)";
    assertEquals(
        "no native access: add --enable-native-access=ALL-UNNAMED" + rest,
        java(onClassPath("--illegal-native-access=deny")));
    assertEquals(
        "no native access: add --enable-native-access=dev.tidemark.ffm" + rest,
        java(onModulePath("--illegal-native-access=deny")));
  }

  @Test
  void theNamedFlagHelps() throws Exception {
    String deny = "--illegal-native-access=deny";
    String granted = "granted, page of " + Pages.SIZE;
    assertEquals(granted, java(onClassPath(deny, "--enable-native-access=ALL-UNNAMED")));
    assertEquals(granted, java(onModulePath(deny, "--enable-native-access=dev.tidemark.ffm")));
  }
}
