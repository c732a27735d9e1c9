#include "tests/support/certificate.h"

#include "tests/support/process.h"

void certificate_run_openssl(const char *directory, const char *command)
{
    char *output;
    char *arguments[] = {"sh", "-c", format_text("cd %s && openssl %s", directory, command), NULL};

    int status = run_program(arguments, &output);
    ck_assert_msg(status == 0, "openssl %s: %s", command, output);
}

#define NEW_KEY "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"

static void certificate_make_authority(const char *directory, const char *name, const char *file)
{
    certificate_run_openssl(directory, format_text("req -x509 " NEW_KEY " -days 2 -subj '/CN=%s' -keyout %s.key "
                                                   "-out %s.pem",
                                                   name, file, file));
}

static void certificate_sign(const char *directory, const char *name, const char *extensions, int days)
{
    write_file(format_text("%s/extensions", directory), extensions);
    certificate_run_openssl(directory, format_text("x509 -req -in %s.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
                                                   "-days %d -extfile extensions -out %s.pem",
                                                   name, days, name));
}

void certificate_sign_server(const char *directory, const char *extensions, int days)
{
    certificate_sign(directory, "server", extensions, days);
}

void certificate_make_all(const char *directory)
{
    static const char *const names[] = {"server", "client"};

    certificate_make_authority(directory, "test authority", "ca");
    certificate_make_authority(directory, "another", "other");
    for (unsigned i = 0; i < 2; i++) {
        certificate_run_openssl(directory, format_text("req " NEW_KEY " -subj '/CN=%s' -keyout %s.key -out %s.csr",
                                                       names[i], names[i], names[i]));
        certificate_sign(directory, names[i], "subjectAltName=DNS:nats.test,IP:127.0.0.1\n", 2);
    }
}
