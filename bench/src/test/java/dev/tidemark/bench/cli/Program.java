package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The command line as a user has it: a process of its own, with the flags of jdk-flags.txt. */
final class Program implements AutoCloseable {
  private static final Path ROOT = Path.of(System.getProperty("tidemark.root"));

  private final Process process;
  private final StringBuilder output = new StringBuilder();
  private final Thread outputReader;
  private final StringBuffer errors = new StringBuffer();
  private final Thread errorsReader;

  /** How a program ended. */
  record Ended(int status, String output, String errors) {
    String lastLine() {
      List<String> lines = output.lines().toList();
      return lines.isEmpty() ? "" : lines.getLast();
    }

    /** A failure for people: its status, one line on stderr that says so much, no stack trace. */
    void assertFails(int expected, String saying) {
      assertEquals(expected, status, errors);
      List<String> complaints = errors.lines().filter(l -> l.startsWith("tidemark: ")).toList();
      assertEquals(1, complaints.size(), errors);
      assertEquals(true, complaints.getFirst().contains(saying), errors);
      assertFalse(errors.contains("\tat "), errors);
    }
  }

  private Program(List<String> command) throws IOException {
    process = new ProcessBuilder(command).start();
    process.getOutputStream().close();
    outputReader = Thread.ofPlatform().daemon().start(this::readOutput);
    errorsReader = Thread.ofPlatform().daemon().start(this::readErrors);
  }

  /** Starts the program with the project's flags. */
  static Program start(String... arguments) throws IOException {
    return startWith(List.of(), "", arguments);
  }

  /**
   * Starts the program.
   *
   * @param options more options for Java
   * @param firstOnClassPath a folder with classes that take precedence, or nothing
   */
  static Program startWith(List<String> options, String firstOnClassPath, String... arguments)
      throws IOException {
    String classPath = System.getProperty("java.class.path");
    return new Program(
        commandLine(
            options,
            firstOnClassPath.isEmpty() ? classPath : firstOnClassPath + ":" + classPath,
            arguments));
  }

  /** The command of {@link #startWith}, for a shell or another program to start. */
  static List<String> commandLine(List<String> options, String... arguments) {
    return commandLine(options, System.getProperty("java.class.path"), arguments);
  }

  private static List<String> commandLine(
      List<String> options, String classPath, String... arguments) {
    List<String> command = new ArrayList<>();
    command.add(java());
    command.add("@" + ROOT.resolve("jdk-flags.txt"));
    command.addAll(options);
    command.add("-cp");
    command.add(classPath);
    command.add("dev.tidemark.bench.Main");
    command.addAll(List.of(arguments));
    return command;
  }

  /** Starts a command as it stands. */
  static Program command(List<String> command) throws IOException {
    return new Program(command);
  }

  static String java() {
    return Path.of(System.getProperty("java.home"), "bin", "java").toString();
  }

  private void readOutput() {
    try (var reader = process.inputReader(StandardCharsets.UTF_8)) {
      for (String line; (line = reader.readLine()) != null; ) {
        synchronized (output) {
          output.append(line).append('\n');
          output.notifyAll();
        }
      }
    } catch (IOException e) {
      // It was ended.
    }
  }

  private void readErrors() {
    try (var reader = process.errorReader(StandardCharsets.UTF_8)) {
      for (String line; (line = reader.readLine()) != null; ) {
        errors.append(line).append('\n');
      }
    } catch (IOException e) {
      // It was ended.
    }
  }

  /** Waits for its first line. */
  String firstLine() throws InterruptedException {
    return awaitLine("");
  }

  /** Waits for a line of its output that begins so. */
  String awaitLine(String beginning) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
    synchronized (output) {
      while (true) {
        var line = output.toString().lines().filter(l -> l.startsWith(beginning)).findFirst();
        if (line.isPresent()) {
          return line.get();
        }
        boolean over = System.nanoTime() > deadline || !outputReader.isAlive();
        assertFalse(over, "it did not say " + beginning + ", but: " + output + errors);
        output.wait(100);
      }
    }
  }

  /** Waits for a line of its errors that begins so. */
  void awaitError(String beginning) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
    while (errors.toString().lines().noneMatch(line -> line.startsWith(beginning))) {
      boolean over = System.nanoTime() > deadline || !errorsReader.isAlive();
      assertFalse(over, "it did not say " + beginning + ", but: " + errors);
      Thread.sleep(10);
    }
  }

  /** Waits until it ends, which must be soon. */
  Ended end() throws Exception {
    if (!process.waitFor(180, TimeUnit.SECONDS)) {
      kill();
      throw new AssertionError("it hangs; so far it said: " + output + errors);
    }
    outputReader.join();
    errorsReader.join();
    return new Ended(process.exitValue(), output.toString(), errors.toString());
  }

  void signal(String name) throws IOException, InterruptedException {
    signal(process.pid(), name);
  }

  static void signal(long pid, String name) throws IOException, InterruptedException {
    new ProcessBuilder("kill", "-" + name, Long.toString(pid)).start().waitFor();
  }

  /** Whether a line of its output so far begins so. */
  boolean said(String beginning) {
    synchronized (output) {
      return output.toString().lines().anyMatch(line -> line.startsWith(beginning));
    }
  }

  boolean isAlive() {
    return process.isAlive();
  }

  /** The processes that it started, as long as it runs. */
  List<ProcessHandle> children() {
    return process.children().toList();
  }

  /** Ends it if it still runs. */
  @Override
  public void close() {
    kill();
  }

  /** Kills it, without warning. */
  void kill() {
    process.destroyForcibly();
    try {
      process.waitFor();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
