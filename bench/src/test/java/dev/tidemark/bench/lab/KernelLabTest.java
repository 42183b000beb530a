package dev.tidemark.bench.lab;

import java.io.File;
import java.io.IOException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicNode;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.engine.support.descriptor.ClassSource;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.TestPlan;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.opentest4j.AssertionFailedError;
import org.opentest4j.TestAbortedException;

/**
 * Runs the tests of all modules that are tagged {@code lab-mock} or {@code lab-vtd} on a kernel
 * that has the devices they need, and reports each as a test of its own. The many of {@code
 * lab-mock} are shared by two boots at a time, each of which takes the next class when it is done
 * with one.
 *
 * <p>Without QEMU or the lab's kernel they count as skipped, unless the environment says {@code
 * TIDEMARK_REQUIRE_LAB=true}. The console's output is in {@code bench/target/lab}.
 */
class KernelLabTest {
  private static final int MINUTES = 15;

  /**
   * For each JVM in the lab, also one that a test starts: under emulation the second compiler and
   * vectors cost more than they bring. A method handle that is compiled anew at its 127th call
   * takes memory; where a test has the kernel refuse that, the JVM would end.
   */
  private static final String JVM_FLAGS =
      "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -XX:-UsePerfData"
          + " -Djava.lang.invoke.MethodHandle.CUSTOMIZE_THRESHOLD=-1 -Dtidemark.vector=forbid";

  private static final boolean REQUIRED = "true".equals(System.getenv("TIDEMARK_REQUIRE_LAB"));
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));
  private static final Path BOOT = ROOT.resolve("bench/lab/boot");

  @TestFactory
  Stream<DynamicNode> mock() throws IOException, InterruptedException {
    checkLab();
    List<AssertionError> stale = new ArrayList<>();
    try {
      DeviceFault.compileAll();
    } catch (AssertionError e) {
      stale.add(e);
    }
    DynamicTest fresh =
        DynamicTest.dynamicTest(
            "the faults fit the sources",
            () -> {
              for (AssertionError one : stale) {
                throw one;
              }
            });
    return Stream.concat(run("mock", 2), Stream.of(fresh));
  }

  @TestFactory
  Stream<DynamicNode> vtd() throws IOException, InterruptedException {
    checkLab();
    return run("vtd", 1);
  }

  private static Stream<DynamicNode> run(String flavour, int boots)
      throws IOException, InterruptedException {
    Path share = ROOT.resolve("bench/target/lab").resolve(flavour);
    if (Files.exists(share)) {
      try (Stream<Path> old = Files.walk(share)) {
        old.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
      }
    }
    Files.createDirectories(share);
    List<Path> classPath = classPath();
    Path classes = share.resolve("classes");
    Files.write(classes, testClasses("lab-" + flavour, classPath));
    List<Future<Stream<DynamicNode>>> results = new ArrayList<>();
    try (ExecutorService threads = Executors.newFixedThreadPool(boots)) {
      for (int boot = 1; boot <= boots; boot++) {
        String name = flavour + "-" + boot;
        results.add(threads.submit(() -> bootAndRead(flavour, name, share, classPath, classes)));
      }
    }
    List<DynamicNode> tests = new ArrayList<>();
    for (Future<Stream<DynamicNode>> result : results) {
      result.resultNow().forEach(tests::add);
    }
    return tests.stream();
  }

  private static Stream<DynamicNode> bootAndRead(
      String flavour, String name, Path share, List<Path> classPath, Path classes)
      throws IOException, InterruptedException {
    Path report = share.resolve(name + ".report");
    Path console = share.resolve(name + ".console.log");
    Path job = share.resolve(name);
    Files.writeString(job, job(flavour, classPath, report, classes));
    if (!job.toFile().setExecutable(true)) {
      throw new IOException("cannot make executable: " + job);
    }
    String end = boot(flavour, share, job, console);
    Path status = share.resolve(name + ".status");
    LabReport results = LabReport.read(report);
    boolean clean =
        results.isComplete()
            && results.tests() > 0
            && Files.exists(status)
            && Files.readString(status).strip().equals("0");
    DynamicTest whole =
        DynamicTest.dynamicTest(
            "the lab " + name + " ran to its end",
            () -> {
              if (!clean) {
                throw new AssertionFailedError(
                    "the lab " + name + " " + end + "; its console said last:\n" + tail(console));
              }
            });
    return Stream.concat(results.asTests(REQUIRED), Stream.of(whole));
  }

  private static void checkLab() throws IOException, InterruptedException {
    Process check =
        new ProcessBuilder(BOOT.toString(), "--check").redirectErrorStream(true).start();
    String missing = new String(check.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    if (check.waitFor() != 0) {
      String line = "kernel lab: its tests are not run: " + missing.strip();
      if (REQUIRED) {
        throw new AssertionFailedError(line);
      }
      System.out.println(line);
      throw new TestAbortedException(line);
    }
  }

  private static String boot(String flavour, Path share, Path job, Path console)
      throws IOException, InterruptedException {
    Process qemu =
        new ProcessBuilder(BOOT.toString(), flavour, share.toString(), job.toString())
            .redirectInput(new File("/dev/null"))
            .redirectOutput(console.toFile())
            .redirectErrorStream(true)
            .start();
    Thread kill = new Thread(qemu::destroyForcibly);
    Runtime.getRuntime().addShutdownHook(kill);
    try {
      return qemu.waitFor(MINUTES, TimeUnit.MINUTES)
          ? "ended (QEMU's exit status " + qemu.exitValue() + ")"
          : "was ended after " + MINUTES + " minutes";
    } finally {
      qemu.destroyForcibly().waitFor();
      Runtime.getRuntime().removeShutdownHook(kill);
    }
  }

  /**
   * JUnit's jars and the like as they are here; Tidemark's own classes from the modules' folders.
   */
  private static List<Path> classPath() {
    Stream<Path> own =
        Stream.of("ffm-bindings", "engine", "bench")
            .map(module -> ROOT.resolve(module).resolve("target"))
            .flatMap(target -> Stream.of(target.resolve("test-classes"), target.resolve("classes")))
            .filter(Files::isDirectory);
    Stream<Path> others =
        Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
            .map(Path::of)
            .filter(entry -> entry.toString().endsWith(".jar") && !entry.startsWith(ROOT));
    return Stream.concat(own, others).toList();
  }

  /** The names of the classes with tests of a tag; found here, because inside it takes longer. */
  private static List<String> testClasses(String tag, List<Path> classPath) throws IOException {
    List<URL> urls = new ArrayList<>();
    for (Path entry : classPath) {
      urls.add(entry.toUri().toURL());
    }
    Thread thread = Thread.currentThread();
    ClassLoader before = thread.getContextClassLoader();
    try (URLClassLoader loader = new URLClassLoader(urls.toArray(URL[]::new), before)) {
      thread.setContextClassLoader(loader);
      TestPlan plan =
          LauncherFactory.create()
              .discover(
                  LauncherDiscoveryRequestBuilder.request()
                      .selectors(
                          DiscoverySelectors.selectClasspathRoots(
                              classPath.stream()
                                  .filter(entry -> entry.endsWith("test-classes"))
                                  .collect(Collectors.toSet())))
                      .filters(TagFilter.includeTags(tag))
                      .build());
      return plan.getRoots().stream()
          .flatMap(engine -> plan.getChildren(engine).stream())
          .map(test -> ((ClassSource) test.getSource().orElseThrow()).getClassName())
          .sorted()
          .toList();
    } finally {
      thread.setContextClassLoader(before);
    }
  }

  private static String job(String flavour, List<Path> classPath, Path report, Path classes) {
    List<String> java = new ArrayList<>();
    java.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    java.add("@" + ROOT.resolve("jdk-flags.txt"));
    java.add("-Djava.io.tmpdir=/run/tmp");
    properties().forEach(java::add);
    java.addAll(
        List.of(
            "-cp",
            classPath.stream().map(Path::toString).collect(Collectors.joining(File.pathSeparator)),
            LabRunner.class.getName(),
            "lab-" + flavour,
            report.toString(),
            classes.toString()));
    return java.stream()
        .map(word -> "'" + word + "'")
        .collect(
            Collectors.joining(
                " ",
                "#!/bin/sh\nexport JDK_JAVA_OPTIONS=\"$JDK_JAVA_OPTIONS " + JVM_FLAGS + "\"\nexec ",
                "\n"));
  }

  /** Tidemark's own, so that a seed or a number of steps given to Maven is given to the lab. */
  private static Stream<String> properties() {
    return System.getProperties().stringPropertyNames().stream()
        .filter(name -> name.startsWith("tidemark.") && !name.startsWith("tidemark.test."))
        .map(name -> "-D" + name + "=" + System.getProperty(name));
  }

  private static String tail(Path console) throws IOException {
    List<String> lines = Files.readString(console, StandardCharsets.ISO_8859_1).lines().toList();
    return String.join("\n", lines.subList(Math.max(0, lines.size() - 30), lines.size()));
  }
}
